//! What a worker measures: its steps, its data, its share of checkpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header;
use axum::routing::get;
use r2o_data::{LoaderStats, Put, Skip, Stage};
use r2o_proto::v1::{CheckpointPart, Timing};
use r2o_telemetry::metrics::{CONTENT_TYPE, table};
use r2o_telemetry::otlp::Metrics as Sent;
use r2o_transport::{Peer, ServerTls};

use crate::gpu::Gpu;

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

/// What was counted of a loader. Each generation has a loader of its own, which begins at nothing.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    images: u64,
    chunks_kept: u64,
    chunks_read: u64,
    chunks_cached: u64,
    bytes_read: u64,
    bytes_requested: u64,
    bytes_cached: u64,
    requests: [u64; table::REQUESTS.len()],
    cache: [u64; Put::ALL.len()],
    nanoseconds: [u64; Stage::ALL.len()],
    skipped: [u64; Skip::ALL.len()],
}

impl Loaded {
    /// Counts what the loader did since the last time.
    pub(crate) fn count(&mut self, metrics: &Metrics, ready: usize, stats: &LoaderStats) {
        self.count_reads(metrics, stats);
        metrics.loader_queue.set(&[], ready as f64);
        metrics.loader_images.add(&[], since(&mut self.images, stats.images()));
        for (stage, before) in Stage::ALL.into_iter().zip(&mut self.nanoseconds) {
            let seconds = since(before, stats.nanoseconds(stage)) / 1e9;
            metrics.loader_stages.add(&[stage.word()], seconds);
        }
        for (skip, before) in Skip::ALL.into_iter().zip(&mut self.skipped) {
            metrics.loader_skipped.add(&[skip.word()], since(before, stats.skipped(skip)));
        }
    }

    fn count_reads(&mut self, metrics: &Metrics, stats: &LoaderStats) {
        let sources = [
            (&mut self.chunks_kept, stats.chunks_kept()),
            (&mut self.chunks_cached, stats.chunks_cached()),
            (&mut self.chunks_read, stats.chunks_read()),
        ];
        for (word, (before, now)) in table::CHUNK_SOURCES.iter().zip(sources) {
            metrics.loader_chunks.add(&[word], since(before, now));
        }
        let reads = stats.reads();
        metrics.loader_read.add(&[], since(&mut self.bytes_read, stats.bytes_read()));
        metrics.loader_requested.add(&[], since(&mut self.bytes_requested, reads.bytes.load(Relaxed)));
        metrics.loader_cache_read.add(&[], since(&mut self.bytes_cached, stats.bytes_cached()));
        let (retries, hedges) = (reads.retries.load(Relaxed), reads.hedges.load(Relaxed));
        let needs = reads.requests.load(Relaxed).saturating_sub(retries + hedges);
        for ((word, before), now) in table::REQUESTS.iter().zip(&mut self.requests).zip([needs, retries, hedges]) {
            metrics.loader_requests.add(&[word], since(before, now.max(*before)));
        }
        for (put, before) in Put::ALL.into_iter().zip(&mut self.cache) {
            metrics.loader_cache.add(&[put.word()], since(before, stats.cache_puts(put)));
        }
        metrics.loader_buffered.set(&[], stats.buffered() as f64);
        metrics.loader_cache_size.set(&[], stats.cache_size() as f64);
    }
}

fn since(before: &mut u64, now: u64) -> f64 {
    now.saturating_sub(std::mem::replace(before, now)) as f64
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

/// The metrics, and what is looked at whenever somebody asks for them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) gpu: Option<Arc<Gpu>>,
}

impl Shown {
    fn look(&self) {
        self.metrics.look(self.tls.as_ref().map(ServerTls::expires));
        if let Some(gpu) = &self.gpu {
            gpu.look(&self.metrics);
        }
    }

    /// What is sent where operators look at it.
    pub(crate) fn sent(&self) -> Sent {
        let looked = self.clone();
        Sent {
            registry: Arc::clone(self.metrics.registry()),
            look: Box::new(move || {
                looked.look();
                Box::pin(std::future::ready(()))
            }),
            lost: self.metrics.spans_lost.clone(),
        }
    }
}

/// `/metrics`, for anybody: no number is secret.
pub(crate) fn page(shown: Shown) -> Router {
    let show = move |ConnectInfo(peer): ConnectInfo<Peer>| async move {
        peer.standing.let_in();
        shown.look();
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], shown.metrics.registry().text())
    };
    Router::new().route("/metrics", get(show))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_counted_on_from_where_it_was() {
        let mut before = 3;
        assert_eq!((since(&mut before, 5), since(&mut before, 5), before), (2.0, 0.0, 5));
    }

    #[test]
    fn words_of_the_loader_are_declared() {
        assert_eq!(Stage::ALL.map(Stage::word), table::STAGES);
        assert_eq!(Skip::ALL.map(Skip::word), table::SKIPS);
        assert_eq!(Put::ALL.map(Put::word), table::CACHE_OUTCOMES);
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
