//! This worker's share of a checkpoint: which tensors it uploads, and the upload.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use r2o_engine::host::HostTensor;
use r2o_proto::v1::{CheckpointPart, TensorObject};
use r2o_storage::Store;
use r2o_storage::checkpoint::{CheckpointError, write_object};

/// Uploads at a time: enough to hide the latency of an object store, few enough to leave the network to training.
const CONCURRENT_UPLOADS: usize = 4;

/// Which of `world` workers uploads each tensor: largest first to the least loaded, so that every worker of the
/// generation computes the same answer from the names and sizes alone.
///
/// `tensors` are (name, bytes); the result has one rank per tensor, in the same order.
pub(crate) fn share(tensors: &[(&str, usize)], world: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&a, &b| tensors[b].1.cmp(&tensors[a].1).then(tensors[a].0.cmp(tensors[b].0)));
    let mut load = vec![0_usize; world.max(1)];
    let mut ranks = vec![0; tensors.len()];
    for index in order {
        let rank = (0..load.len()).min_by_key(|&rank| load[rank]).unwrap_or(0);
        load[rank] += tensors[index].1.max(1);
        ranks[index] = rank;
    }
    ranks
}

/// Uploads tensors, reads each back, and says what was stored; a failure, also to have copied them, becomes the part's
/// `error`.
pub(crate) async fn upload(
    store: Store,
    job: String,
    generation: u64,
    step: u64,
    tensors: Result<Vec<HostTensor>>,
) -> CheckpointPart {
    match store_all(&store, tensors).await {
        Ok(tensors) => CheckpointPart { job, generation, step, tensors, error: String::new() },
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(job, step, "cannot upload this worker's share of a checkpoint: {error}");
            CheckpointPart { job, generation, step, tensors: Vec::new(), error }
        }
    }
}

async fn store_all(store: &Store, tensors: Result<Vec<HostTensor>>) -> Result<Vec<TensorObject>> {
    let uploaded: Result<Vec<TensorObject>, CheckpointError> = stream::iter(tensors?)
        .map(|tensor| async move {
            let bytes = tensor.bytes.len() as u64;
            let object = write_object(store, tensor.bytes).await?;
            Ok(TensorObject {
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                blake3: object.to_string(),
                bytes,
            })
        })
        .buffer_unordered(CONCURRENT_UPLOADS)
        .try_collect()
        .await;
    Ok(uploaded?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_tensor_and_are_even() {
        let tensors = [("a", 100), ("b", 60), ("c", 50), ("d", 10), ("e", 0)];
        let ranks = share(&tensors, 2);
        assert_eq!(ranks.len(), tensors.len());
        let load = |rank| tensors.iter().zip(&ranks).filter(|(_, r)| **r == rank).map(|(t, _)| t.1).sum::<usize>();
        assert!(load(0).abs_diff(load(1)) <= 10, "{} {}", load(0), load(1));
        assert_eq!(share(&tensors, 1), [0; 5]);
    }

    #[test]
    fn shares_do_not_depend_on_the_order_of_names() {
        let forward = share(&[("a", 5), ("b", 5), ("c", 5)], 2);
        let backward = share(&[("c", 5), ("b", 5), ("a", 5)], 2);
        assert_eq!(forward, backward.into_iter().rev().collect::<Vec<_>>());
    }
}
