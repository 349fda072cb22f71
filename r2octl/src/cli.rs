//! The arguments.

use std::path::{Path, PathBuf};

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use r2o_data::pack::Part;
use r2o_transport::ClientTls;
use r2o_types::Dtype;

use crate::error::EXIT_CODES;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Trains and looks after Region-to-Object pretraining jobs.
#[derive(Debug, Parser)]
#[command(name = "r2octl", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        env = "R2O_COORDINATOR",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7070",
        value_name = "URL"
    )]
    pub(crate) coordinator: String,

    /// File whose first line is the token that the coordinator asks for
    #[arg(long, global = true, env = "R2O_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) tls: ClientTls,

    /// How to print results: table and wide for people, json and yaml for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a job
    Submit(Submit),
    /// List the jobs
    #[command(visible_alias = "ls")]
    List,
    /// Show one job in a line, or whole as JSON or YAML
    Get(Job),
    /// Show all there is to say about a job, with its last events and its spec
    Describe(Job),
    /// Say what a job waits for or does, and what to do about it
    Why(Job),
    /// Follow a job's progress until it ends
    Watch(Watch),
    /// Show what happened to a job
    Events(Events),
    /// Show what a job's workers logged
    Logs(Logs),
    /// Stop a job for good; its checkpoints stay
    Cancel(Cancel),
    /// Let a job save its state and give its workers back until it is resumed
    Pause(Pause),
    /// Let a paused job go on
    Resume(Job),
    /// Send a job to the end of the queue; one that failed or was cancelled is submitted again
    Requeue(Job),
    /// Take a checkpoint of a running job now, and wait until it is committed
    Checkpoint(Job),
    /// List and verify checkpoints
    #[command(subcommand)]
    Checkpoints(Checkpoints),
    /// Prove that each sample was trained on exactly once, from what lies in storage
    #[command(subcommand)]
    Ledger(Ledger),
    /// Step through a coordinator's journal, and what it amounts to after each record
    Replay(Replay),
    /// Write the trained backbone as a safetensors file
    Export(Export),
    /// Write the HTML report of a run
    Report(Report),
    /// Pack and inspect data sets
    #[command(subcommand)]
    Data(Data),
    /// List the workers
    #[command(visible_alias = "workers")]
    Fleet,
    /// Watch jobs, curves, workers and events in this terminal
    Top(Top),
    /// Print the JSON schema of job.yaml
    Schema,
    /// Print a completion script; for bash: source <(r2octl completion bash)
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the versions of this program and of what it can read
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job's name
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The job's YAML or JSON file; `-` reads the standard input
    #[arg(value_name = "FILE", required_unless_present = "named")]
    file: Option<PathBuf>,
    /// The same, as kubectl writes it
    #[arg(id = "named", short = 'f', long = "file", value_name = "FILE", conflicts_with = "file")]
    named: Option<PathBuf>,
    /// Only have it checked by the coordinator
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Follow the job until it ends
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) watch: bool,
}

impl Submit {
    /// The job's file.
    pub(crate) fn file(&self) -> &Path {
        self.file.as_deref().or(self.named.as_deref()).unwrap_or_else(|| Path::new("-"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The job's name
    pub(crate) job: String,
    /// Without a terminal: at least so many seconds between two lines of the same epoch
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub(crate) interval: f64,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The job's name
    pub(crate) job: String,
    /// Go on with new ones as they happen
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job's name
    pub(crate) job: String,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines; 0 for all that are kept
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    pub(crate) tail: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The job's name
    pub(crate) job: String,
    /// Why, for the job's events
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The job's name
    pub(crate) job: String,
    /// Why, for the job's events
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The job that is chosen at first; otherwise the first that is not over
    pub(crate) job: Option<String>,
    /// Print how things stand and leave, as where there is no terminal
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoints {
    /// List the checkpoints of a run
    Ls {
        /// A job, or the checkpoint URL of a run
        #[arg(value_name = "JOB|URL")]
        run: String,
    },
    /// Read every tensor of a checkpoint and check it against its BLAKE3
    Verify {
        /// A job, or the checkpoint URL of a run
        #[arg(value_name = "JOB|URL")]
        run: String,
        /// The checkpoint after so many steps; otherwise all of them
        #[arg(long)]
        step: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Compare every step and lane of a run with the plan of its epochs
    Verify {
        /// A job, or the checkpoint URL of a run
        #[arg(value_name = "JOB|URL")]
        run: String,
    },
    /// List the ranges of steps that make up the state of a run
    Show {
        /// A job, or the checkpoint URL of a run
        #[arg(value_name = "JOB|URL")]
        run: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The coordinator's state: its folder or storage URL
    #[arg(value_name = "STATE_URL")]
    pub(crate) state: String,
    /// Only records about this job, and between them its events and the steps that it trained
    #[arg(long)]
    pub(crate) job: Option<String>,
    /// Stop after the record of this number
    #[arg(long, value_name = "N")]
    pub(crate) until: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A job, or the checkpoint URL of a run
    #[arg(value_name = "JOB|URL")]
    pub(crate) run: String,
    /// The checkpoint after so many steps; otherwise the newest that is whole
    #[arg(long)]
    pub(crate) step: Option<u64>,
    /// The file to write, or a storage URL
    #[arg(long, default_value = "backbone.safetensors", value_name = "FILE|URL")]
    pub(crate) out: String,
    /// Whose names the tensors get
    #[arg(long, value_enum, default_value_t = Layout::Torchvision)]
    pub(crate) format: Layout,
    /// Which of the two networks
    #[arg(long, value_enum, default_value_t = Network::Online)]
    pub(crate) network: Network,
}

/// Whose names exported tensors get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// torchvision's, for `load_state_dict`; only `fc` is missing
    Torchvision,
    /// Detectron2's ResNet, `stem.conv1.norm.weight`
    Detectron2,
    /// MMSegmentation's and MMDetection's, torchvision's behind `backbone.`
    Mmsegmentation,
    /// Every tensor of the state under its own name, heads and momentum included
    State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    Online,
    Target,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// A job, or the checkpoint URL of a run
    #[arg(value_name = "JOB|URL")]
    pub(crate) run: String,
    /// The file to write, or a storage URL; `-` writes to the standard output
    #[arg(long, default_value = "report.html", value_name = "FILE|URL")]
    pub(crate) out: String,
    /// Also write the figure of masks over the epochs as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) figure: Option<PathBuf>,
    /// Images in that figure
    #[arg(long, default_value_t = 4, value_name = "N", requires = "figure")]
    pub(crate) figure_images: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Turn photographs into shards with an index and superpixels: a folder tree, a list, WebDataset, parquet or COCO
    Pack(Pack),
    /// Finish a set that was packed in parts
    Merge {
        /// Where the parts were packed into
        #[arg(value_name = "URL")]
        out: String,
    },
    /// Show and verify a packed data set
    Inspect {
        /// Where it lies
        url: String,
    },
    /// Measure how fast this machine loads a packed data set, stage by stage, and how many cores a GPU needs
    Bench(DataBench),
}

/// What a job's loaders make, by `data.pixelType` and `precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PixelDtype {
    Float32,
    Bfloat16,
    Uint8,
}

impl From<PixelDtype> for Dtype {
    fn from(dtype: PixelDtype) -> Self {
        match dtype {
            PixelDtype::Float32 => Self::Float32,
            PixelDtype::Bfloat16 => Self::Bfloat16,
            PixelDtype::Uint8 => Self::Uint8,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DataBench {
    /// Where the data set lies
    pub(crate) url: String,
    /// Side of the views in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) image_size: u32,
    /// Superpixels of the job; without it those of the stored label maps, which need no computing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) segments: Option<u32>,
    /// Type of the views' values
    #[arg(long, value_enum, default_value_t = PixelDtype::Float32)]
    pub(crate) dtype: PixelDtype,
    /// Decoding threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Images that a GPU trains on in a second (an H100 at the method's ceiling: 2350)
    #[arg(long, default_value_t = 2350.0, value_name = "RATE")]
    pub(crate) gpu_rate: f64,
    /// Most bytes of data in memory that is read and not decoded yet
    #[arg(long, default_value_t = 1 << 30, value_name = "BYTES")]
    pub(crate) loader_memory: u64,
    /// Folder for data kept on a local disk, as a worker's
    #[arg(long, value_name = "FOLDER", requires = "cache_bytes")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Most bytes in that folder
    #[arg(long, value_name = "BYTES", requires = "cache_dir")]
    pub(crate) cache_bytes: Option<u64>,
    /// Show instead how well windows of several sizes mix the set, beside a full permutation; reads only the index
    #[arg(long)]
    pub(crate) order: bool,
    /// Sizes of those windows, in chunks
    #[arg(long, value_delimiter = ',', default_value = "16,1,4,64", value_name = "N,...", requires = "order",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) windows: Vec<u32>,
    /// Lanes of the job, for --order
    #[arg(long, default_value_t = 128, value_name = "N", requires = "order", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) lanes: u32,
    /// Images per lane and step, for --order
    #[arg(long, default_value_t = 32, value_name = "N", requires = "order", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) samples_per_lane: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Pack {
    /// A path or storage URL: a folder tree (the first folders name the classes), a list (.txt, .lst, .tsv: path, label and
    /// mask, between tabs), a WebDataset tar or a parquet file with images in it, a folder of them, or COCO's annotations
    /// (instances_*.json)
    #[arg(value_name = "SRC")]
    pub(crate) source: String,
    /// Where to write the data set: a folder or a storage URL
    #[arg(long, value_name = "URL")]
    pub(crate) out: String,
    /// Ground-truth masks: a folder or storage URL of files named like the images
    #[arg(long, value_name = "URL")]
    pub(crate) masks: Option<String>,
    /// The images of COCO's annotations: a folder or storage URL
    #[arg(long, value_name = "URL", conflicts_with = "masks")]
    pub(crate) images: Option<String>,
    /// Superpixels per image to ask SLIC for
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) segments: u32,
    /// Side of the label maps in pixels
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    pub(crate) slic_size: u32,
    /// Size at which a shard ends
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub(crate) shard_mib: u64,
    /// Skip images with a shorter side
    #[arg(long, default_value_t = 32, value_name = "PIXELS")]
    pub(crate) min_side: u32,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) threads: usize,
    /// Pack only the I-th of N parts (1/3, 2/3, 3/3), one process each; `data merge` then makes a set of them
    #[arg(long, default_value_t = Part::WHOLE, value_name = "I/N", hide_default_value = true)]
    pub(crate) part: Part,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_command_and_exit_code() {
        let help = Cli::command().term_width(100).render_help().to_string();
        insta::assert_snapshot!(help, @r"
        Trains and looks after Region-to-Object pretraining jobs

        Usage: r2octl [OPTIONS] <COMMAND>

        Commands:
          submit       Submit a job
          list         List the jobs [alias: ls]
          get          Show one job in a line, or whole as JSON or YAML
          describe     Show all there is to say about a job, with its last events and its spec
          why          Say what a job waits for or does, and what to do about it
          watch        Follow a job's progress until it ends
          events       Show what happened to a job
          logs         Show what a job's workers logged
          cancel       Stop a job for good; its checkpoints stay
          pause        Let a job save its state and give its workers back until it is resumed
          resume       Let a paused job go on
          requeue      Send a job to the end of the queue; one that failed or was cancelled is submitted
                       again
          checkpoint   Take a checkpoint of a running job now, and wait until it is committed
          checkpoints  List and verify checkpoints
          ledger       Prove that each sample was trained on exactly once, from what lies in storage
          replay       Step through a coordinator's journal, and what it amounts to after each record
          export       Write the trained backbone as a safetensors file
          report       Write the HTML report of a run
          data         Pack and inspect data sets
          fleet        List the workers [alias: workers]
          top          Watch jobs, curves, workers and events in this terminal
          schema       Print the JSON schema of job.yaml
          completion   Print a completion script; for bash: source <(r2octl completion bash)
          version      Print the versions of this program and of what it can read
          help         Print this message or the help of the given subcommand(s)

        Options:
              --coordinator <URL>  Address of the coordinator [env: R2O_COORDINATOR] [default:
                                   http://127.0.0.1:7070]
              --token-file <FILE>  File whose first line is the token that the coordinator asks for [env:
                                   R2O_TOKEN_FILE]
              --tls-ca <FILE>      Authorities that the coordinator's certificate may be of, in PEM, for an
                                   https address; default: the system's [env: R2O_TLS_CA]
              --tls-cert <FILE>    Certificate to show to the coordinator, in PEM [env: R2O_TLS_CERT]
              --tls-key <FILE>     That certificate's key, in PEM [env: R2O_TLS_KEY]
          -o, --output <FORMAT>    How to print results: table and wide for people, json and yaml for
                                   programs [default: table]
          -h, --help               Print help
          -V, --version            Print version

        Exit codes:
          0  done
          1  failed for another reason than those below
          2  wrong usage: unknown command or argument
          3  not found: no such job, checkpoint or file
          4  refused: the input is invalid, damaged, or conflicts with what is there
          5  unreachable: no answer from the coordinator or the storage
          6  the watched job failed or was cancelled
          7  no space left
          8  not proven: the ledger does not show that each sample was trained on exactly once
          9  not allowed: the token is missing, unknown, or of a role that may not do this
        ");
    }
}
