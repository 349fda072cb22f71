//! Values that are asked for often and looked up seldom.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How old the fleet may be on a page.
pub(super) const SOON: Duration = Duration::from_millis(900);
/// How old what lies in storage may be on a page.
pub(super) const LATER: Duration = Duration::from_secs(5);

/// One value. Those who ask at the same time share one look-up.
#[derive(Debug)]
pub(super) struct Fresh<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Fresh<T> {
    /// The value, looked up again when it is older than `age`.
    pub(super) async fn get<F: Future<Output = T>>(&self, age: Duration, look: impl FnOnce() -> F) -> Arc<T> {
        self.get_after(age, |_| look()).await
    }

    /// [`Fresh::get`] for a look-up that can build on the value before.
    pub(super) async fn get_after<F: Future<Output = T>>(
        &self,
        age: Duration,
        look: impl FnOnce(Option<Arc<T>>) -> F,
    ) -> Arc<T> {
        let mut known = self.0.lock().await;
        if let Some((at, value)) = &*known
            && at.elapsed() < age
        {
            return Arc::clone(value);
        }
        let before = known.as_ref().map(|(_, value)| Arc::clone(value));
        let value = Arc::new(look(before).await);
        *known = Some((Instant::now(), Arc::clone(&value)));
        value
    }
}

/// One value for each of the last few runs that were asked for. A run is a job's name and when it was submitted.
#[derive(Debug)]
pub(super) struct Cache<T> {
    runs: Lock<BTreeMap<(String, u64), (Instant, Arc<Fresh<T>>)>>,
    most: usize,
}

impl<T> Cache<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { runs: Lock::default(), most }
    }

    pub(super) fn of(&self, name: &str, submitted_at: u64) -> Arc<Fresh<T>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let run = (name.to_owned(), submitted_at);
        if !runs.contains_key(&run) && runs.len() >= self.most {
            let oldest = runs.iter().min_by_key(|(_, (used, _))| *used).map(|(run, _)| run.clone());
            oldest.and_then(|run| runs.remove(&run));
        }
        let (used, fresh) = runs.entry(run).or_insert_with(|| (Instant::now(), Arc::default()));
        *used = Instant::now();
        Arc::clone(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_looked_up_again_only_when_it_is_old() {
        let fresh = Fresh::default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(*fresh.get(hour, || async { 1 }).await, 1);
        assert_eq!(*fresh.get(hour, || async { 2 }).await, 1);
        assert_eq!(*fresh.get(Duration::ZERO, || async { 3 }).await, 3);
    }

    #[tokio::test]
    async fn the_run_that_was_asked_for_longest_ago_is_forgotten() {
        let cache = Cache::new(2);
        let hour = Duration::from_secs(3_600);
        for name in ["a", "b", "a", "c"] {
            cache.of(name, 0).get(hour, || async { 1 }).await;
        }
        assert_eq!(*cache.of("a", 0).get(hour, || async { 2 }).await, 1);
        assert_eq!(*cache.of("b", 0).get(hour, || async { 2 }).await, 2);
    }
}
