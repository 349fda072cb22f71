//! Images of a set, of any format.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = r2o_data::decode(bytes) {
        assert!(r2o_data::dimensions(bytes).is_ok());
        drop(picture);
    }
});
