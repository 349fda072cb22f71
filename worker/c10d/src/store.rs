//! The rendezvous store: where the ranks of a group leave their addresses for each other.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A key-value store shared by the ranks of a group: c10d::Store in Rust.
///
/// Errors are sentences; they surface in the error of the group that uses the store. Methods are called from threads
/// of libtorch, some of them at once.
pub trait Store: Send + Sync {
    /// Sets a key.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String>;
    /// Returns a key's value, waiting until it is set.
    ///
    /// # Errors
    /// When the timeout passes, or the store cannot be reached or refuses.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String>;
    /// Adds to a counter, held as decimal text as c10d does, and returns the sum. A missing key counts as zero.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses, or the value is no number.
    fn add(&self, key: &str, delta: i64) -> Result<i64, String>;
    /// Sets a key to `desired` if it holds `expected` (or is missing while `expected` is empty); returns what it holds
    /// afterwards.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, String>;
    /// Whether all keys are set.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    fn check(&self, keys: &[String]) -> Result<bool, String>;
    /// Deletes a key; whether it was there.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses.
    fn delete(&self, key: &str) -> Result<bool, String>;
}

/// A store in this process, for groups of threads and for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    values: Mutex<HashMap<String, Vec<u8>>>,
    changed: Condvar,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn values(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.values().insert(key.to_owned(), value.to_vec());
        self.changed.notify_all();
        Ok(())
    }

    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + timeout;
        let mut values = self.values();
        loop {
            if let Some(value) = values.get(key) {
                return Ok(value.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("key `{key}` was not set within {timeout:?}"));
            }
            values = self.changed.wait_timeout(values, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn add(&self, key: &str, delta: i64) -> Result<i64, String> {
        let mut values = self.values();
        let held = values.get(key).map(Vec::as_slice).unwrap_or(b"0");
        let number = std::str::from_utf8(held).ok().and_then(|text| text.parse::<i64>().ok());
        let sum = number.ok_or_else(|| format!("key `{key}` holds no number"))? + delta;
        values.insert(key.to_owned(), sum.to_string().into_bytes());
        self.changed.notify_all();
        Ok(sum)
    }

    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, String> {
        let mut values = self.values();
        let matches = values.get(key).map_or(expected.is_empty(), |held| held == expected);
        if matches {
            values.insert(key.to_owned(), desired.to_vec());
            self.changed.notify_all();
        }
        Ok(values.get(key).cloned().unwrap_or_else(|| expected.to_vec()))
    }

    fn check(&self, keys: &[String]) -> Result<bool, String> {
        let values = self.values();
        Ok(keys.iter().all(|key| values.contains_key(key)))
    }

    fn delete(&self, key: &str) -> Result<bool, String> {
        Ok(self.values().remove(key).is_some())
    }
}
