//! A rendezvous store in a folder, for the processes of one row.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use r2o_c10d::Store;

/// How often a waiting call looks.
const POLL: Duration = Duration::from_millis(1);

/// Keys are files. Writes happen under one lock and appear whole.
pub(crate) struct FolderStore(pub(crate) PathBuf);

impl FolderStore {
    /// Keys hold slashes and colons: their bytes in hex make a file's name.
    fn path(&self, key: &str) -> PathBuf {
        self.0.join(key.bytes().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path(key)).ok()
    }

    fn write(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let half = self.0.join("half");
        let whole = self.path(key);
        fs::write(&half, value)
            .and_then(|()| fs::rename(&half, &whole))
            .map_err(|e| format!("{}: {e}", whole.display()))
    }

    fn locked<T>(&self, body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let path = self.0.join("lock");
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        let _held = lock.map_err(|e| format!("{}: {e}", path.display()))?;
        body()
    }
}

impl Store for FolderStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.locked(|| self.write(key, value))
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let started = Instant::now();
        loop {
            if let Some(value) = self.read(key) {
                return Ok(value);
            }
            if started.elapsed() > timeout {
                return Err(format!("key `{key}` was not set within {timeout:?}"));
            }
            thread::sleep(POLL);
        }
    }

    fn add(&self, key: &str, delta: i64) -> Result<i64, String> {
        self.locked(|| {
            let held = self.read(key).unwrap_or_else(|| b"0".to_vec());
            let number: i64 =
                String::from_utf8_lossy(&held).parse().map_err(|_| format!("key `{key}` holds no number"))?;
            self.write(key, (number + delta).to_string().as_bytes())?;
            Ok(number + delta)
        })
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, String> {
        self.locked(|| {
            let held = self.read(key);
            if held.as_deref().unwrap_or_default() != expected {
                return Ok(held.unwrap_or_else(|| expected.to_vec()));
            }
            self.write(key, desired)?;
            Ok(desired.to_vec())
        })
    }

    fn check(&self, keys: &[String]) -> Result<bool, String> {
        Ok(keys.iter().all(|key| self.path(key).exists()))
    }

    fn delete(&self, key: &str) -> Result<bool, String> {
        self.locked(|| Ok(fs::remove_file(self.path(key)).is_ok()))
    }
}
