//! A WebDataset tar that is packed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r2o_data::pack::{PackOptions, pack};

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let source = folder.path().join("set.tar");
    if std::fs::write(&source, bytes).is_err() {
        return;
    }
    let out = folder.path().join("out");
    let options = PackOptions { threads: 1, ..PackOptions::new(source.to_string_lossy(), out.to_string_lossy()) };
    let _refused_or_not = pack(&options, &());
});
