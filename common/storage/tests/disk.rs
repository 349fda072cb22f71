//! A full disk and a read-only one. Both need a mount of their own: the tests run themselves again in a mount namespace,
//! as root or, where the kernel allows it, in a user namespace; otherwise they say what they need.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use r2o_storage::checkpoint::{CheckpointError, write_object};
use r2o_storage::journal::{AppendError, Journal};
use r2o_storage::{StorageError, Store, open};

/// Set in the second run: the folder on which the file system is mounted.
const MOUNTED: &str = "R2O_TEST_MOUNTED";

/// Runs the test `name` again in a process that sees a fresh tmpfs; `script` runs first, with the folder as `$D`. Returns
/// false, and says what is missing, where nothing can be mounted.
fn again_with_mount(name: &str, script: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    for flags in ["-m", "-rm"] {
        let can = Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "none"]).arg(folder.path()).output();
        if !can.is_ok_and(|out| out.status.success()) {
            continue;
        }
        let out = Command::new("unshare")
            .args([flags, "sh", "-ec", &format!("{script}\nexec \"$EXE\" --exact {name} --nocapture")])
            .env("D", folder.path())
            .env("EXE", &exe)
            .env(MOUNTED, folder.path())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        return true;
    }
    println!("not run: {name}: needs root or user namespaces (unshare -rm) to mount a small tmpfs");
    false
}

fn mounted() -> Option<Store> {
    std::env::var(MOUNTED).ok().map(|folder| open(&folder).unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn left_behind(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_full_disk_is_named_and_leaves_no_half_object() {
    let Some(store) = mounted() else {
        again_with_mount("a_full_disk_is_named_and_leaves_no_half_object", "mount -t tmpfs -o size=256k none \"$D\"");
        return;
    };
    run(async {
        let small = write_object(&store, vec![1; 100]).await.unwrap();
        let error = write_object(&store, vec![2; 1 << 20]).await.unwrap_err();
        let CheckpointError::Storage(StorageError::NoSpace { url, .. }) = &error else { panic!("{error:?}") };
        assert!(url.starts_with(store.url()) && url.contains("/objects/"), "{url}");
        let message = error.to_string();
        assert!(message.contains("no space left") && message.contains("free some space"), "{message}");

        // Nothing of the refused object remains, and the store goes on with what fits.
        let objects = left_behind(&store.folder().unwrap().join("objects"));
        assert_eq!(objects, [small.to_string()]);
        let (mut journal, _) = Journal::open(&store).await.unwrap();
        let refused = journal.append(0, &vec![3; 1 << 20]).await.unwrap_err();
        assert!(matches!(refused, AppendError::Storage(StorageError::NoSpace { .. })), "{refused:?}");
        journal.append(0, b"fits").await.unwrap();
        let mut upload = store.upload("big.tar").await.unwrap();
        let mut outcome = Ok(());
        for _ in 0..4 {
            outcome = outcome.and(upload.write(vec![4; 8 << 20]).await);
        }
        let outcome = match outcome {
            Ok(()) => upload.finish().await,
            Err(e) => upload.abort().await.and(Err(e)),
        };
        assert!(matches!(outcome, Err(StorageError::NoSpace { .. })), "{outcome:?}");
        assert_eq!(store.head("big.tar").await.unwrap(), None);
    });
}

#[test]
fn a_read_only_folder_is_named() {
    let Some(store) = mounted() else {
        let script = "mount -t tmpfs none \"$D\"; echo hello > \"$D/there\"; mount -o remount,ro \"$D\"";
        again_with_mount("a_read_only_folder_is_named", script);
        return;
    };
    run(async {
        assert_eq!(&store.get("there").await.unwrap()[..], b"hello\n");
        let error = store.put("here", "x").await.unwrap_err();
        assert!(matches!(error, StorageError::ReadOnly { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&store.url_of("here")) && message.contains("read-only"), "{message}");
        let error = store.put_if_absent("a/b", "x").await.unwrap_err();
        assert!(matches!(error, StorageError::ReadOnly { .. }), "{error:?}");
        let error = store.delete("there").await.unwrap_err();
        assert!(matches!(error, StorageError::ReadOnly { .. }), "{error:?}");
    });
}
