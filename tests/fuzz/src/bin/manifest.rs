//! The manifest of a checkpoint; its seal is not looked at in these builds, or nothing would come any further.
#![no_main]

use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use r2o_storage::checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let store = r2o_fuzz::store(&[("manifests/000000000007.json", bytes)]);
    if let Ok(manifest) = block_on(checkpoint::load_manifest(&store, 7)) {
        let _size = manifest.bytes();
        // Nothing that it names is there, and that is what has to be said.
        let verified = block_on(checkpoint::verify_manifest(&store, &manifest));
        assert!(verified.is_err() || manifest.tensors.is_empty() || verified.is_ok_and(|v| !v.is_whole()));
    }
});
