//! Flags and exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use r2o_telemetry::LogFormat;
use r2o_telemetry::otlp::OtlpOptions;
use r2o_transport::ClientTls;

/// What the program accepts.
#[derive(Debug, Parser)]
#[command(name = "r2o-worker", version, about = "Trains Region-to-Object jobs for an R2O coordinator")]
#[command(after_help = "Exit codes: 0 drained or finished, 1 failure, 2 usage, 3 refused by the coordinator, \
                        4 asked twice to leave, or not done by the drain deadline, and left at once, \
                        5 stuck in an aborted generation.")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The two things a worker can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Join a coordinator's fleet and train what it grants, until SIGTERM.
    Run(Box<RunOptions>),
    /// Run one step of one lane without a coordinator, from and to safetensors files: an aid for debugging.
    Golden(GoldenOptions),
}

/// Where a worker computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// A GPU when there is one.
    Auto,
    /// The processor.
    Cpu,
    /// The first visible GPU.
    Cuda,
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// The coordinator's gRPC address.
    #[arg(long, env = "R2O_COORDINATOR", default_value = "http://127.0.0.1:7070")]
    pub(crate) coordinator: String,
    /// File whose first line is the token that this worker shows; read again for every request.
    #[arg(long, env = "R2O_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to meet a coordinator whose address is https.
    #[command(flatten)]
    pub(crate) tls: ClientTls,
    /// Address of /metrics, /livez and /readyz; default: none.
    #[arg(long, env = "R2O_HTTP", value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Stable name, unique in the fleet; default: host name and process id.
    #[arg(long, env = "R2O_WORKER_NAME")]
    pub(crate) name: Option<String>,
    /// Host or IP address at which peers reach this worker's data plane.
    #[arg(long, env = "R2O_ADVERTISE", default_value = "127.0.0.1")]
    pub(crate) advertise: String,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// Threads for computing on a CPU; default: all cores.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Threads for decoding images; default: as many as for computing.
    #[arg(long)]
    pub(crate) loader_threads: Option<usize>,
    /// Most bytes of data in memory that is read and not decoded yet.
    #[arg(long, env = "R2O_LOADER_MEMORY", value_name = "BYTES", default_value_t = 1 << 30)]
    pub(crate) loader_memory: u64,
    /// Folder for data kept on a local disk; made when it is not there, otherwise empty or such a folder already. Workers of
    /// one host may share it.
    #[arg(long, env = "R2O_CACHE_DIR", value_name = "FOLDER", requires = "cache_bytes")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Most bytes in that folder, of all workers that share it.
    #[arg(long, env = "R2O_CACHE_BYTES", value_name = "BYTES", requires = "cache_dir")]
    pub(crate) cache_bytes: Option<u64>,
    /// Seconds that a collective may take before it counts as hung.
    #[arg(long, default_value_t = 300)]
    pub(crate) collective_timeout: u64,
    /// Seconds after SIGTERM within which the worker hands over; then it leaves at once.
    #[arg(long, default_value_t = 25)]
    pub(crate) drain_deadline: u64,
    /// File whose appearance says that the machine will be taken away: the worker hands over and leaves, as after SIGTERM.
    /// A number in it is the seconds that are left, in place of the drain deadline.
    #[arg(long, env = "R2O_PREEMPTION_FILE", value_name = "FILE")]
    pub(crate) preemption_file: Option<PathBuf>,
    /// Seconds after which a computing thread that does not leave an ended generation ends the process.
    #[arg(long, default_value_t = 60)]
    pub(crate) abort_deadline: u64,
    /// Report a hash of every lane's pixels and masks with each step.
    #[arg(long)]
    pub(crate) audit: bool,
    /// Flip a bit of the state after this step, as a faulty memory would: a test of what finds it.
    #[arg(long, hide = true, value_name = "STEP")]
    pub(crate) flip_bit_at: Option<u64>,
    /// Where traces and metrics go; what is traced is up to the coordinator.
    #[command(flatten)]
    pub(crate) otlp: OtlpOptions,
    /// Look of log lines: text or json.
    #[arg(long, env = "R2O_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Flags of `golden`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GoldenOptions {
    /// The job whose model and method are used.
    #[arg(long, value_name = "JOB.yaml")]
    pub(crate) config: PathBuf,
    /// Parameters and buffers before the step.
    #[arg(long, value_name = "S.safetensors")]
    pub(crate) state: PathBuf,
    /// Views, prior, boxes and flips of one lane.
    #[arg(long, value_name = "B.safetensors")]
    pub(crate) batch: PathBuf,
    /// Clusters; above 128 the prior's regions are the masks.
    #[arg(long)]
    pub(crate) k: u32,
    /// EMA momentum of the target network.
    #[arg(long)]
    pub(crate) tau: f64,
    /// Learning rate.
    #[arg(long = "lr", visible_alias = "l", value_name = "L")]
    pub(crate) learning_rate: f64,
    /// Where loss, labels, masks, projections, gradients and the new state go.
    #[arg(long, value_name = "O.safetensors")]
    pub(crate) out: PathBuf,
}

impl From<GoldenOptions> for r2o_engine::golden::GoldenArgs {
    fn from(o: GoldenOptions) -> Self {
        Self {
            config: o.config,
            state: o.state,
            batch: o.batch,
            k: o.k,
            tau: o.tau,
            learning_rate: o.learning_rate,
            out: o.out,
        }
    }
}
