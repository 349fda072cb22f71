//! What a worker measures: its steps, its data, its share of checkpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header;
use axum::routing::get;
use r2o_data::LoaderCounts;
use r2o_proto::v1::{CheckpointPart, Timing};
use r2o_telemetry::metrics::{CONTENT_TYPE, table};
use r2o_transport::{Peer, ServerTls};

/// All metrics of a worker. Cheap to clone.
pub(crate) type Metrics = Arc<table::Worker>;

/// A step of this worker's own lanes.
pub(crate) fn step(metrics: &Metrics, timings: &[Timing], images: usize) {
    metrics.steps.inc(&[]);
    metrics.images.add(&[], images as f64);
    for timing in timings {
        metrics.phase_seconds.observe(&[&timing.phase], timing.seconds);
    }
}

/// What the loader did since `before`; gives back what to compare with the next time. Each generation has a loader of its own.
pub(crate) fn loader(metrics: &Metrics, before: LoaderCounts, now: LoaderCounts) -> LoaderCounts {
    let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
    metrics.loader_queue.set(&[], now.ready as f64);
    metrics.loader_batches.add(&[], since(now.batches, before.batches));
    metrics.loader_chunks.add(&["cache"], since(now.chunks_cached, before.chunks_cached));
    metrics.loader_chunks.add(&["store"], since(now.chunks_read, before.chunks_read));
    metrics.loader_read.add(&[], since(now.bytes_read, before.bytes_read));
    now
}

/// A share of a checkpoint that was uploaded, or was not.
pub(crate) fn upload(metrics: &Metrics, part: &CheckpointPart, took: Duration) {
    if part.error.is_empty() {
        metrics.upload_seconds.observe(&[], took.as_secs_f64());
        metrics.upload_bytes.add(&[], part.tensors.iter().map(|tensor| tensor.bytes).sum::<u64>() as f64);
    } else {
        metrics.upload_failures.inc(&[]);
    }
}

/// `/metrics`, for anybody: no number is secret.
pub(crate) fn page(metrics: Metrics, tls: Option<ServerTls>) -> Router {
    let show = move |ConnectInfo(peer): ConnectInfo<Peer>| async move {
        peer.standing.let_in();
        metrics.look(tls.as_ref().map(ServerTls::expires));
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.registry().text())
    };
    Router::new().route("/metrics", get(show))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_counted_on_from_where_it_was() {
        let metrics = Metrics::default();
        let counts = |ready, batches| LoaderCounts { ready, batches, ..LoaderCounts::default() };
        let before = loader(&metrics, LoaderCounts::default(), counts(2, 3));
        loader(&metrics, before, counts(1, 5));
        let text = metrics.registry().text();
        assert!(
            text.contains("r2o_loader_batches_total 5.0") && text.contains("r2o_loader_queue_batches 1.0"),
            "{text}"
        );
    }

    #[test]
    fn an_upload_that_failed_counts_no_bytes() {
        let metrics = Metrics::default();
        let part = CheckpointPart { error: "no space".to_owned(), ..CheckpointPart::default() };
        upload(&metrics, &part, Duration::from_secs(1));
        let text = metrics.registry().text();
        assert!(text.contains("r2o_checkpoint_upload_failures_total 1.0"), "{text}");
        assert!(text.contains("r2o_checkpoint_upload_bytes_total 0.0"), "{text}");
    }
}
