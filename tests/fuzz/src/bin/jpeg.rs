//! JPEGs, by our own decoder and by libjpeg-turbo: what ours takes has the other's pixels.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| assert!(r2o_data::jpeg_decoders_agree(bytes)));
