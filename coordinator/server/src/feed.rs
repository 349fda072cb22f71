//! A bounded list that any number of readers follow, each at its own pace.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use tokio::sync::watch;

#[derive(Debug)]
struct Ring<T> {
    items: VecDeque<T>,
    /// Number of the first item that is still there.
    first: u64,
    closed: bool,
}

/// A bounded list with followers. The oldest items go when it is full; a reader that was too slow skips them.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    ring: Mutex<Ring<T>>,
    changed: watch::Sender<()>,
    capacity: usize,
}

impl<T: Clone + Send + 'static> Feed<T> {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        let ring = Ring { items: VecDeque::new(), first: 0, closed: false };
        Arc::new(Self { ring: Mutex::new(ring), changed: watch::Sender::new(()), capacity })
    }

    fn lock(&self) -> MutexGuard<'_, Ring<T>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        let mut ring = self.lock();
        if ring.items.len() == self.capacity {
            ring.items.pop_front();
            ring.first += 1;
        }
        ring.items.push_back(item);
        drop(ring);
        self.changed.send_replace(());
    }

    /// Nothing more will come: followers end when they have read all.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.send_replace(());
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.lock().items.iter().cloned().collect()
    }

    pub(crate) fn last(&self) -> Option<T> {
        self.lock().items.back().cloned()
    }

    /// The number of the first of the last `count` items.
    pub(crate) fn tail(&self, count: usize) -> u64 {
        let ring = self.lock();
        ring.first + ring.items.len().saturating_sub(count) as u64
    }

    /// The number of the first item for which `wanted` is true; the end when there is none.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> u64 {
        let ring = self.lock();
        ring.first + ring.items.iter().position(wanted).unwrap_or(ring.items.len()) as u64
    }

    /// The last `count` items.
    pub(crate) fn last_few(&self, count: usize) -> Vec<T> {
        let ring = self.lock();
        ring.items.iter().skip(ring.items.len().saturating_sub(count)).cloned().collect()
    }

    /// Items from number `from` on, and the number after them.
    pub(crate) fn since(&self, from: u64) -> (VecDeque<T>, u64) {
        let (items, next, _) = self.read(from);
        (items, next)
    }

    /// Items from number `from` on, the number after them, and whether more may come.
    fn read(&self, from: u64) -> (VecDeque<T>, u64, bool) {
        let ring = self.lock();
        let skip = usize::try_from(from.saturating_sub(ring.first)).unwrap_or(usize::MAX);
        let items: VecDeque<T> = ring.items.iter().skip(skip).cloned().collect();
        (items, ring.first + ring.items.len() as u64, ring.closed)
    }

    /// All items from number `from` on; with `follow` also those to come, until the feed is closed.
    pub(crate) fn stream(self: &Arc<Self>, from: u64, follow: bool) -> impl Stream<Item = T> + Send + use<T> {
        let state = (Arc::clone(self), self.changed.subscribe(), VecDeque::new(), from);
        futures::stream::unfold(state, move |(feed, mut changed, mut ready, mut from)| async move {
            loop {
                if let Some(item) = ready.pop_front() {
                    return Some((item, (feed, changed, ready, from)));
                }
                changed.mark_unchanged();
                let (items, next, closed) = feed.read(from);
                (ready, from) = (items, next);
                if ready.is_empty() {
                    if closed || !follow {
                        return None;
                    }
                    changed.changed().await.ok()?;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_follower_reads_what_is_there_and_what_comes_until_the_end() {
        let feed = Feed::new(10);
        feed.push(1);
        let follower = feed.stream(0, true);
        feed.push(2);
        feed.close();
        assert_eq!(follower.collect::<Vec<_>>().await, [1, 2]);
        assert_eq!(feed.stream(1, false).collect::<Vec<_>>().await, [2]);
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_slow_readers_skip_them() {
        let feed = Feed::new(3);
        (0..5).for_each(|i| feed.push(i));
        assert_eq!(feed.all(), [2, 3, 4]);
        assert_eq!((feed.tail(2), feed.find(|i| *i == 4), feed.last()), (3, 4, Some(4)));
        feed.close();
        assert_eq!(feed.stream(0, true).collect::<Vec<_>>().await, [2, 3, 4]);
    }
}
