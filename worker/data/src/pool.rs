//! Batches' buffers, used again: memory of a batch is some 2 MB an image, and fresh pages cost as much as their pixels.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use r2o_types::Dtype;

use crate::pixels::{Memory, Pixels};

/// The large parts of a batch.
#[derive(Debug)]
pub(crate) struct Buffers {
    pub(crate) raw: Pixels,
    pub(crate) view1: Pixels,
    pub(crate) view2: Pixels,
    pub(crate) prior: Vec<u8>,
}

impl Buffers {
    fn none(dtype: Dtype) -> Self {
        let none = || Pixels::none(dtype);
        Self { raw: none(), view1: none(), view2: none(), prior: Vec::new() }
    }
}

/// Buffers that wait for the next batch.
#[derive(Debug)]
pub(crate) struct Pool {
    waiting: Mutex<Vec<Buffers>>,
    most: usize,
    dtype: Dtype,
    /// Where pixels should lie.
    memory: Option<Arc<dyn Memory>>,
}

impl Pool {
    /// A pool that keeps the buffers of so many batches.
    pub(crate) fn new(most: usize, dtype: Dtype, memory: Option<Arc<dyn Memory>>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::new(Vec::with_capacity(most)), most, dtype, memory })
    }

    /// Buffers for `images` of `pixels` pixels each, with any content.
    pub(crate) fn take(self: &Arc<Self>, images: usize, pixels: usize) -> (Buffers, Home) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffers = waiting.unwrap_or_else(|| Buffers::none(self.dtype));
        for view in [&mut buffers.raw, &mut buffers.view1, &mut buffers.view2] {
            view.resize(images * 3 * pixels, self.memory.as_ref());
        }
        buffers.prior.resize(images * pixels, 0);
        (buffers, Home(Arc::downgrade(self)))
    }
}

/// Where a batch's buffers go when it is dropped. All homes are equal: two batches are, when what they hold is.
#[derive(Debug, Default)]
pub(crate) struct Home(Weak<Pool>);

impl Home {
    pub(crate) fn give_back(&self, buffers: Buffers) {
        if let Some(pool) = self.0.upgrade() {
            let mut waiting = pool.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() < pool.most {
                waiting.push(buffers);
            }
        }
    }
}

impl Clone for Home {
    /// A copy's buffers are its own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Home {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_while_the_pool_lives() {
        let pool = Pool::new(1, Dtype::Float32, None);
        let (buffers, home) = pool.take(2, 4);
        assert_eq!((buffers.raw.len(), buffers.prior.len()), (24, 8));
        let place = buffers.raw.bytes().as_ptr();
        home.give_back(buffers);
        home.give_back(Buffers::none(Dtype::Float32));
        let (again, home) = pool.take(1, 4);
        assert_eq!((again.raw.len(), again.raw.bytes().as_ptr()), (12, place));
        drop(pool);
        home.give_back(again);
    }
}
