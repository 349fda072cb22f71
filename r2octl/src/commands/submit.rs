//! `submit`: read a job, have it checked, hand it over.

use std::io::Read;
use std::path::Path;

use r2o_proto::v1::SubmitRequest;
use r2o_types::TrainJob;
use serde::Serialize;

use crate::cli::Submit;
use crate::client::Coordinator;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::view::JobView;
use crate::watching;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Submitted {
    created: bool,
    dry_run: bool,
    job: JobView,
}

pub(super) async fn submit(url: &str, args: Submit, output: &mut Output) -> Result<(), CliError> {
    let file = args.file();
    let text = read(file)?;
    // Checked here first: the same rules, and all of a file's mistakes at once even when no coordinator runs.
    let shown = if is_stdin(file) { "the standard input".into() } else { file.display().to_string() };
    TrainJob::parse(&text).and_then(|job| job.validate()).map_err(|e| {
        CliError::refused(format!("{shown} is not a valid job:\n{e}"))
            .advice("`r2octl schema` prints what a job may contain")
    })?;
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.submit(SubmitRequest { spec: text, dry_run: args.dry_run }).await;
    let answer = coordinator.take(answer, &format!("submit {shown}"))?;
    let job = JobView::from(answer.job.unwrap_or_default());
    let name = job.name.clone();
    let submitted = Submitted { created: answer.created, dry_run: args.dry_run, job };
    let verb = match (args.dry_run, answer.created) {
        (true, _) => "valid (nothing was submitted)",
        (false, true) => "submitted",
        (false, false) => "already there, unchanged",
    };
    if !args.watch {
        return output.result(&submitted, |_| format!("job `{name}` {verb}"));
    }
    output.note(&format!("job `{name}` {verb}"));
    watching::watch(url, &name, 5.0, output).await
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn read(file: &Path) -> Result<String, CliError> {
    let read = if is_stdin(file) {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| {
        let exit = if e.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failure };
        CliError::new(exit, format!("cannot read the job file {}", file.display())).because(e)
    })
}
