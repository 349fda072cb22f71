//! One module per command, or per family of commands.

mod checkpoints;
mod data;
mod export;
mod jobs;
mod ledger;
mod meta;
mod replay;
mod report;
mod streams;
mod submit;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{Cli, Command};
use crate::client;
use crate::error::CliError;
use crate::output::Output;
use crate::top;
use crate::watching;

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> Result<(), CliError> {
    client::show_identity(cli.token_file, cli.tls);
    let url = cli.coordinator.as_str();
    let output = &mut Output::stdout(cli.output);
    match cli.command {
        Command::Submit(args) => submit::submit(url, args, output).await,
        Command::List => jobs::list(url, output).await,
        Command::Get(args) => jobs::get(url, &args.job, output).await,
        Command::Describe(args) => jobs::describe(url, &args.job, output).await,
        Command::Why(args) => jobs::why(url, &args.job, output).await,
        Command::Watch(args) => watching::watch(url, &args.job, args.interval, output).await,
        Command::Events(args) => streams::events(url, args, output).await,
        Command::Logs(args) => streams::logs(url, args, output).await,
        Command::Cancel(args) => jobs::cancel(url, args, output).await,
        Command::Pause(args) => jobs::pause(url, args, output).await,
        Command::Resume(args) => jobs::resume(url, &args.job, output).await,
        Command::Requeue(args) => jobs::requeue(url, &args.job, output).await,
        Command::Checkpoint(args) => jobs::checkpoint(url, &args.job, output).await,
        Command::Checkpoints(args) => checkpoints::run(url, args, output).await,
        Command::Ledger(args) => ledger::run(url, args, output).await,
        Command::Replay(args) => replay::replay(args, output).await,
        Command::Export(args) => export::export(url, args, output).await,
        Command::Report(args) => report::report(url, args, output).await,
        Command::Data(args) => data::run(args, output).await,
        Command::Fleet => jobs::fleet(url, output).await,
        Command::Top(args) => top::top(url, args, output).await,
        Command::Schema => meta::schema(output),
        Command::Completion { shell } => meta::completion(shell, output),
        Command::Version => meta::version(output),
    }
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
