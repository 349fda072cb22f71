//! A parquet file that is packed.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The reader of parquet may panic where that is caught; what nobody catches still ends this program.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    r2o_fuzz::pack(&[("set.parquet", bytes)], "set.parquet", None);
});
