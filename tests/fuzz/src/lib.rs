//! What comes from outside, in random bytes: nothing may panic, hang or take memory without bounds, whatever is in it.
//!
//! One program per way in, in `src/bin`; each says nothing as long as all is well. `cargo xtask fuzz` builds them with
//! coverage and runs them, starting from the samples that it names.

use futures::executor::block_on;
use r2o_data::pack::{PackOptions, pack as packed};
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

/// Packs a source that is among these files of a folder, whether or not it can be.
///
/// # Panics
/// When a folder for it cannot be had, which is no finding.
pub fn pack(files: &[(&str, &[u8])], source: &str, images: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (name, bytes) in files {
        let file = path(name);
        let made = std::fs::create_dir_all(file.parent().unwrap_or(folder.path()));
        made.and_then(|()| std::fs::write(&file, bytes)).expect("a file");
    }
    let shown = |name: &str| path(name).to_string_lossy().into_owned();
    let images = images.map(shown);
    let small = PackOptions {
        threads: 1,
        side_min: 8,
        slic_size: 32,
        segments: 10,
        images,
        ..PackOptions::new(shown(source), shown("out"))
    };
    let _refused_or_not = packed(&small, &());
}
