//! Label maps, behind a head that fits.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let read = r2o_data::read_made_up(bytes, 16);
    assert!(read <= 1, "no bytes are both a PNG and zstd's");
});
