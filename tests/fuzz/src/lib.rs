//! What comes from outside, in random bytes: nothing may panic, hang or take memory without bounds, whatever is in it.
//!
//! One program per way in, in `src/bin`; each says nothing as long as all is well. `cargo xtask fuzz` builds them with
//! coverage and runs them, starting from the samples that it names.

use futures::executor::block_on;
use r2o_storage::Store;

/// A store in memory that holds these objects.
///
/// # Panics
/// When memory cannot be written, which is no finding.
#[must_use]
pub fn store(objects: &[(&str, &[u8])]) -> Store {
    #[expect(clippy::unwrap_used, reason = "a store in memory takes everything")]
    let store = r2o_storage::open("memory:///").unwrap();
    for (key, bytes) in objects {
        #[expect(clippy::unwrap_used, reason = "a store in memory takes everything")]
        block_on(store.put(key, bytes.to_vec())).unwrap();
    }
    store
}
