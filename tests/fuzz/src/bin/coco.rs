//! COCO's annotations of a folder of images, which are packed.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The one that the samples are about.
const IMAGE: &[u8] = include_bytes!("../../../fixtures/formats/plain.png");

fuzz_target!(|bytes: &[u8]| {
    r2o_fuzz::pack(&[("instances.json", bytes), ("images/1.png", IMAGE)], "instances.json", Some("images"));
});
