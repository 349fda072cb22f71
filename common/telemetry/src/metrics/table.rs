//! Every metric of R2O. Dashboards, alerts and the guide name only what stands here; tests hold them to it.

use std::sync::Arc;
use std::time::SystemTime;

use super::declaration::{Declaration, Kind, Label, Unit, Values};
use super::family::{Counter, Gauge, Histogram};
use super::process::{Process, unix_seconds};
use super::registry::Registry;
use crate::build_info;

const fn of(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Of(values) }
}

const JOB: Label = Label { name: "job", values: Values::Jobs };
const VERSION: Label = Label { name: "version", values: Values::Build };
const PLATFORM: Label = Label { name: "platform", values: Values::Build };

/// States of a job, in the API's words.
pub const JOB_STATES: &[&str] = &["queued", "paused", "starting", "running", "succeeded", "failed", "cancelled"];
/// What a job that has not ended does with its time.
pub const ACTIVITIES: &[&str] = &["training", "forming", "waiting", "paused", "finishing"];
/// What a connected worker does.
pub const WORKER_STATES: &[&str] = &["idle", "joining", "training"];
/// Parts of a step, in their order.
pub const PHASES: &[&str] = &[
    "data_wait",
    "to_device",
    "mask_features",
    "masks",
    "align",
    "online",
    "follow",
    "target",
    "loss",
    "backward",
    "signals",
    "all_reduce_wait",
    "update",
    "checkpoint_hold",
    "hash_state",
];
/// Why a generation ended and the next was opened.
pub const REASONS: &[&str] =
    &["worker_lost", "worker_left", "worker_drained", "preempted", "paused", "replica_differs", "resized", "failed"];
/// Why a generation was opened: for the first time, or after one of [`REASONS`].
pub const OPENINGS: &[&str] = &[
    "first",
    "worker_lost",
    "worker_left",
    "worker_drained",
    "preempted",
    "paused",
    "replica_differs",
    "resized",
    "failed",
];
/// Where a loader's time goes.
pub const STAGES: &[&str] = &["read", "decode", "resize", "augment", "prior", "assemble", "wait"];
/// Why a sample's own pixels were left out of a batch.
pub const SKIPS: &[&str] = &["empty", "unknown_format", "too_large", "broken", "label_map"];
/// Where a loader's chunks come from.
pub const CHUNK_SOURCES: &[&str] = &["memory", "disk", "store"];
/// Why a loader asks the store.
pub const REQUESTS: &[&str] = &["need", "retry", "hedge"];
/// What becomes of entries of the disk cache.
pub const CACHE_OUTCOMES: &[&str] = &["kept", "full", "failed", "damaged"];
/// What the coordinator does with storage.
pub const OPERATIONS: &[&str] =
    &["journal", "lease", "history", "manifest", "locate", "retention", "report", "orphans"];
/// Why a span did not come to the receiver of traces.
pub const SPAN_LOSSES: &[&str] = &["queue_full", "not_sent", "rejected"];
/// Words of events that are counted apart.
pub const EVENTS: &[&str] = &[
    "CheckpointCommitted",
    "CheckpointDamaged",
    "CheckpointFailed",
    "CheckpointsFail",
    "CoordinatorRestarted",
    "GalleryFailed",
    "GenerationEnded",
    "GenerationOpened",
    "HistoryNotWritten",
    "JournalNotWritten",
    "JournalWritten",
    "MixedVersions",
    "Preempted",
    "ReplicaDiffers",
    "ReplicasDiffer",
    "ReportsLost",
    "StateGivenUp",
    "StepsRecovered",
    "StorageFailed",
    "Submitted",
    "Training",
    "WorkerDraining",
    "WorkerLeft",
    "WorkerLost",
];

/// Of a step and its parts.
const STEP: &[f64] = &[0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// Of what storage does.
const STORAGE: &[f64] = &[0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0, 300.0];
/// Of recoveries.
const RECOVERY: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 900.0];

macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $all:ident {
        $($field:ident: $kind:ident $metric:literal $unit:ident [$($label:expr),*] $(buckets $buckets:ident)? $help:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            registry: Arc<Registry>,
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// The declarations.
        pub const $all: &[Declaration] = &[$(Declaration {
            name: $metric,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            buckets: { #[allow(unused_mut, unused_assignments)] { let mut buckets: &[f64] = &[]; $(buckets = $buckets;)? buckets } },
            help: $help,
        }),*];

        impl Default for $name {
            fn default() -> Self {
                let mut registry = Registry::default();
                let mut all = $all.iter();
                $(let $field = registry.add(next(&mut all));)*
                let made = Self { registry: Arc::new(registry), $($field),* };
                let build = build_info();
                made.build_info.set(&[build.version, build.platform], 1.0);
                made
            }
        }

        impl $name {
            /// All metrics of one process.
            #[must_use]
            pub fn registry(&self) -> &Arc<Registry> {
                &self.registry
            }

            /// Takes over what the process takes, and until when its certificate is valid, if it has one.
            pub fn look(&self, certificate: Option<SystemTime>) {
                let process = Process::look();
                self.resident_memory.set(&[], process.resident_bytes);
                self.cpu.raise_to(&[], process.cpu_seconds);
                if let Some(expires) = certificate {
                    self.certificate_expiry.set(&[], unix_seconds(expires));
                }
            }
        }
    };
}

/// Fields and declarations come from one list.
fn next(all: &mut std::slice::Iter<'static, Declaration>) -> &'static Declaration {
    static NONE: Declaration =
        Declaration { name: "", kind: Kind::Gauge, unit: Unit::None, labels: &[], buckets: &[], help: "" };
    all.next().unwrap_or(&NONE)
}

table! {
    /// What a coordinator measures.
    Coordinator, COORDINATOR {
        build_info: Gauge "r2o_build_info" None [VERSION, PLATFORM] "Always 1; its labels say what the program was built from.";
        certificate_expiry: Gauge "r2o_tls_certificate_expiry_timestamp_seconds" Seconds [] "When the served certificate ends, in seconds since 1970; 0 without TLS.";
        resident_memory: Gauge "process_resident_memory_bytes" Bytes [] "Memory of the process.";
        cpu: Counter "process_cpu_seconds_total" Seconds [] "Processor time of the process.";
        jobs: Gauge "r2o_jobs" None [of("state", JOB_STATES)] "Jobs by state.";
        workers: Gauge "r2o_workers" None [of("state", WORKER_STATES)] "Connected workers by what they do.";
        leases_lost: Counter "r2o_leases_lost_total" None [] "Streams that were closed because their worker was silent, computed nothing, or came again on another one.";
        committed_steps: Gauge "r2o_job_committed_steps" None [JOB] "Steps that are committed.";
        total_steps: Gauge "r2o_job_total_steps" None [JOB] "Steps of the whole job.";
        epoch: Gauge "r2o_job_epoch" None [JOB] "The epoch of the last committed step, counted from 1.";
        members: Gauge "r2o_job_workers" None [JOB] "Workers of the job's generation.";
        generation: Gauge "r2o_job_generation" None [JOB] "The newest generation.";
        tickets: Gauge "r2o_job_tickets_outstanding" None [JOB] "Steps that are granted and not committed.";
        loss: Gauge "r2o_job_loss" None [JOB] "Loss of the last committed step, the mean over lanes.";
        k: Gauge "r2o_job_k" None [JOB] "Clusters per lane (K) of the last committed step.";
        tau: Gauge "r2o_job_tau" None [JOB] "Momentum of the target network (tau) in the last committed step.";
        learning_rate: Gauge "r2o_job_learning_rate" None [JOB] "Learning rate of the last committed step.";
        gradient_norm: Gauge "r2o_job_gradient_norm" None [JOB] "Euclidean norm of the mean gradient in the last committed step.";
        valid_regions: Gauge "r2o_job_valid_regions" None [JOB] "Regions that count in the last committed step, the mean per image.";
        similarity: Gauge "r2o_job_similarity" None [JOB] "Cosine of predictions and the target's projections of the same regions, the mean in the last step that was looked at.";
        embedding_std: Gauge "r2o_job_embedding_std" None [JOB] "Standard deviation of projections of unit length times the root of their dimensions: 1 where they are spread evenly, 0 where they have collapsed.";
        effective_rank: Gauge "r2o_job_embedding_effective_rank" None [JOB] "Dimensions that projections make use of: the exponential of the entropy of their singular values.";
        kmeans_iterations: Gauge "r2o_job_kmeans_iterations" None [JOB] "Iterations of K-means until no point moved, the mean over lanes.";
        masks_per_image: Gauge "r2o_job_masks_per_image" None [JOB] "Masks that an image shows any of, the mean over images.";
        largest_mask: Gauge "r2o_job_largest_mask_ratio" None [JOB] "Share of an image that its largest mask takes, the mean over images.";
        average_best_overlap: Gauge "r2o_job_average_best_overlap_ratio" None [JOB] "How well masks fit the objects of the gallery's images that have ground truth: the best intersection over union of each, the mean.";
        prior_average_best_overlap: Gauge "r2o_job_prior_average_best_overlap_ratio" None [JOB] "The same of the prior's regions.";
        images_per_second: Gauge "r2o_job_images_per_second" None [JOB] "Images trained on in a second, smoothed over steps.";
        steps: Counter "r2o_steps_total" None [JOB] "Steps committed by this coordinator.";
        images: Counter "r2o_images_total" None [JOB] "Images of the steps committed by this coordinator.";
        step_seconds: Histogram "r2o_step_seconds" Seconds [JOB] buckets STEP "From one committed step to the next.";
        phase_seconds: Histogram "r2o_step_phase_seconds" Seconds [JOB, of("phase", PHASES)] buckets STEP "Parts of a committed step, on the worker that was slowest in each.";
        activity: Counter "r2o_job_activity_seconds_total" Seconds [JOB, of("activity", ACTIVITIES)] "Time of the job by what it did; the share of training is its goodput.";
        generations: Counter "r2o_generations_opened_total" None [JOB, of("reason", OPENINGS)] "Generations by why they were opened.";
        recovery_seconds: Histogram "r2o_recovery_seconds" Seconds [JOB, of("reason", REASONS)] buckets RECOVERY "From the end of a generation to the readiness of the next.";
        replicas_differ: Counter "r2o_replicas_differ_total" None [JOB] "Workers found to hold another state than their peers.";
        replicas_healed: Counter "r2o_replicas_healed_total" None [JOB] "Times that training went on from a sound state after replicas differed.";
        checkpoint_step: Gauge "r2o_checkpoint_step" None [JOB] "Committed steps in the newest checkpoint.";
        checkpoint_time: Gauge "r2o_checkpoint_timestamp_seconds" Seconds [JOB] "When the newest checkpoint was committed, or when this coordinator first saw the job, in seconds since 1970.";
        checkpoint_bytes: Gauge "r2o_checkpoint_size_bytes" Bytes [JOB] "Size of the newest checkpoint.";
        checkpoint_commit: Histogram "r2o_checkpoint_commit_seconds" Seconds [JOB] buckets STORAGE "Writing a manifest, history before it and retention after it.";
        checkpoint_failures: Counter "r2o_checkpoint_failures_total" None [JOB] "Checkpoints that were not written.";
        journal_append: Histogram "r2o_journal_append_seconds" Seconds [] buckets STORAGE "Writing one record of the journal, tries that fail included.";
        storage_errors: Counter "r2o_storage_errors_total" None [of("operation", OPERATIONS)] "Failures of storage, by what was being done.";
        storage_retries: Counter "r2o_storage_retries_total" None [of("operation", OPERATIONS)] "What was tried again after a failure of storage.";
        spans_lost: Counter "r2o_spans_lost_total" None [of("reason", SPAN_LOSSES)] "Spans of traces that were dropped, by why.";
        events: Counter "r2o_events_total" None [of("kind", EVENTS)] "Events of jobs by their word.";
    }
}

table! {
    /// What a worker measures.
    Worker, WORKER {
        build_info: Gauge "r2o_build_info" None [VERSION, PLATFORM] "Always 1; its labels say what the program was built from.";
        certificate_expiry: Gauge "r2o_tls_certificate_expiry_timestamp_seconds" Seconds [] "When the served certificate ends, in seconds since 1970; 0 without TLS.";
        resident_memory: Gauge "process_resident_memory_bytes" Bytes [] "Memory of the process.";
        cpu: Counter "process_cpu_seconds_total" Seconds [] "Processor time of the process.";
        steps: Counter "r2o_worker_steps_total" None [] "Steps that this worker computed.";
        images: Counter "r2o_worker_images_total" None [] "Images of this worker's own lanes.";
        phase_seconds: Histogram "r2o_worker_phase_seconds" Seconds [of("phase", PHASES)] buckets STEP "Parts of a step on this worker.";
        gpu_memory_used: Gauge "r2o_gpu_memory_used_bytes" Bytes [] "Memory of this worker's GPU that is taken, by whomever; 0 without a GPU.";
        gpu_memory_size: Gauge "r2o_gpu_memory_size_bytes" Bytes [] "Memory that this worker's GPU has; 0 without a GPU.";
        gpu_utilization: Gauge "r2o_gpu_utilization_ratio" None [] "Share of the last moments in which this worker's GPU computed anything; 0 without a GPU.";
        loader_queue: Gauge "r2o_loader_queue_batches" None [] "Batches that are ready; 0 all the time means that training waits for data.";
        loader_images: Counter "r2o_loader_images_total" None [] "Images that were put into batches.";
        loader_stages: Counter "r2o_loader_stage_seconds_total" Seconds [of("stage", STAGES)] "Time of the loader by what was done, summed over threads; wait is training that waits for data.";
        loader_skipped: Counter "r2o_loader_skipped_total" None [of("reason", SKIPS)] "Samples whose own pixels were left out, by why.";
        loader_chunks: Counter "r2o_loader_chunks_total" None [of("from", CHUNK_SOURCES)] "Chunks that steps needed, by where they came from.";
        loader_read: Counter "r2o_loader_read_bytes_total" Bytes [] "Bytes of chunks read from the store.";
        loader_requested: Counter "r2o_loader_requested_bytes_total" Bytes [] "Bytes that the store sent for chunks, those of hedges and of what was read twice included.";
        loader_cache_read: Counter "r2o_loader_cache_read_bytes_total" Bytes [] "Bytes of samples read from the disk cache.";
        loader_requests: Counter "r2o_loader_requests_total" None [of("why", REQUESTS)] "Requests to the store for chunks, by why they were made.";
        loader_cache: Counter "r2o_loader_cache_entries_total" None [of("outcome", CACHE_OUTCOMES)] "Chunks offered to the disk cache and damaged entries in it.";
        loader_buffered: Gauge "r2o_loader_buffered_bytes" Bytes [] "Memory of what is read and not decoded yet, reads under way included.";
        loader_cache_size: Gauge "r2o_loader_cache_size_bytes" Bytes [] "Size of the disk cache, of all workers of the host and all sets.";
        copy_seconds: Histogram "r2o_state_copy_seconds" Seconds [] buckets STORAGE "From the request for a checkpoint until the state lies in host memory, while training goes on.";
        upload_seconds: Histogram "r2o_checkpoint_upload_seconds" Seconds [] buckets STORAGE "Uploading this worker's share of a checkpoint and reading it back.";
        upload_bytes: Counter "r2o_checkpoint_upload_bytes_total" Bytes [] "Bytes of checkpoints uploaded.";
        spans_lost: Counter "r2o_spans_lost_total" None [of("reason", SPAN_LOSSES)] "Spans of traces that were dropped, by why.";
        upload_failures: Counter "r2o_checkpoint_upload_failures_total" None [] "Shares of checkpoints that were not uploaded.";
    }
}

/// Every declaration, without repetition, by name.
#[must_use]
pub fn all() -> Vec<Declaration> {
    let mut all: Vec<Declaration> = COORDINATOR.iter().chain(WORKER).copied().collect();
    all.sort_by_key(|declaration| declaration.name);
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for declaration in all() {
            let name = declaration.name;
            assert!(name.starts_with("r2o_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            let counter = declaration.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), counter, "{name}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            assert!(base.ends_with(declaration.unit.suffix()), "{name}");
            assert_eq!(declaration.buckets.is_empty(), declaration.kind != Kind::Histogram, "{name}");
            assert!(declaration.help.ends_with('.'), "{name}: {}", declaration.help);
        }
    }

    #[test]
    fn a_name_is_declared_once() {
        let names: Vec<_> = all().iter().map(|d| d.name).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{names:?}");
    }

    #[test]
    fn reasons_are_openings_too() {
        assert!(REASONS.iter().all(|reason| OPENINGS.contains(reason)));
    }

    #[test]
    fn values_are_shown_under_their_declared_names() {
        let metrics = Coordinator::default();
        metrics.steps.inc(&["demo"]);
        metrics.loss.set(&["demo"], 1.5);
        metrics.phase_seconds.observe(&["demo", "masks"], 0.3);
        metrics.look(None);
        let text = metrics.registry().text();
        for line in [
            "r2o_steps_total{job=\"demo\"} 1.0",
            "r2o_job_loss{job=\"demo\"} 1.5",
            "r2o_step_phase_seconds_count{job=\"demo\",phase=\"masks\"} 1",
            "r2o_jobs{state=\"running\"} 0.0",
            "r2o_leases_lost_total 0.0",
            "# TYPE r2o_journal_append_seconds histogram",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_are_bounded_whatever_comes() {
        let metrics = Coordinator::default();
        for n in 0..10_000 {
            metrics.steps.inc(&[&format!("job-{n}")]);
            metrics.phase_seconds.observe(&[&format!("job-{n}"), &format!("phase-{n}")], 1.0);
        }
        let text = metrics.registry().text();
        assert!(text.contains("r2o_steps_total{job=\"other\"} 9936.0"), "{text}");
        assert!(text.contains("job=\"job-63\",phase=\"other\"") && !text.contains("job-64"), "{text}");
    }

    #[test]
    fn an_ended_job_makes_room() {
        let metrics = Coordinator::default();
        for n in 0..100 {
            let job = format!("job-{n}");
            metrics.registry().begin(&job);
            metrics.steps.inc(&[&job]);
            metrics.loss.set(&[&job], 1.0);
            metrics.registry().retire(&job);
        }
        let text = metrics.registry().text();
        assert!(!text.contains("r2o_job_loss{"), "{text}");
        assert!(text.contains("r2o_steps_total{job=\"job-99\"}") && !text.contains("\"job-83\""), "{text}");
        assert!(!text.contains("\"other\""), "{text}");
    }
}
