//! A WebDataset tar that is packed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| r2o_fuzz::pack(&[("set.tar", bytes)], "set.tar", None));
