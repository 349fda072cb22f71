//! Following a job: a progress bar on a terminal, plain lines elsewhere, JSON lines for programs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use r2o_proto::v1::WatchRequest;

use crate::client::Coordinator;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::table::numbers;
use crate::view::{ProgressView, State};

/// So long a coordinator may be away (it restarts) before watching gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Follows `job` until it ends.
///
/// # Errors
/// With [`Exit::JobFailed`] when the job failed or was cancelled.
pub(crate) async fn watch(url: &str, job: &str, interval: f64, output: &mut Output) -> Result<(), CliError> {
    let mut shown = Shown::new(output, Duration::from_secs_f64(interval.clamp(0.0, 86400.0)));
    let mut last: Option<ProgressView> = None;
    loop {
        match follow(url, job, &mut last, &mut shown, output).await {
            Ok(true) => break,
            // The stream ended although the job did not: the coordinator stops or restarts.
            Ok(false) => {}
            Err(e) if e.code() == Exit::Unreachable && shown.heard.is_some_and(|at| at.elapsed() < PATIENCE) => {}
            // Nobody answered at the first look, or not for too long, or the answer was no.
            Err(e) => return Err(e),
        }
        shown.pause("the coordinator does not answer, trying again");
        tokio::time::sleep(RETRY_EVERY).await;
    }
    let Some(last) = last else { return Ok(()) };
    shown.finish(&last, output)?;
    match last.state {
        State::Failed | State::Cancelled => {
            let why = if last.reason.is_empty() { "no reason given" } else { &last.reason };
            Err(CliError::new(Exit::JobFailed, format!("job `{job}` {}: {why}", last.state.to_string().to_lowercase()))
                .advice(format!("`r2octl describe {job}` and `r2octl logs {job}` say more")))
        }
        _ => Ok(()),
    }
}

/// One stream, until the job (true) or only the stream (false) ends.
async fn follow(
    url: &str,
    job: &str,
    last: &mut Option<ProgressView>,
    shown: &mut Shown,
    output: &mut Output,
) -> Result<bool, CliError> {
    let about = format!("job `{job}`");
    let mut coordinator = Coordinator::connect(url).await?;
    let from_step = last.as_ref().map_or(0, |p| p.step);
    let answer = coordinator.jobs.watch(WatchRequest { name: job.to_owned(), from_step }).await;
    let mut stream = coordinator.take(answer, &about)?;
    loop {
        match stream.message().await {
            Ok(Some(progress)) => {
                let progress = ProgressView::from(progress);
                shown.show(&progress, output)?;
                let over = progress.state.is_final();
                *last = Some(progress);
                if over {
                    return Ok(true);
                }
            }
            Ok(None) => return Ok(false),
            Err(status) => return Err(CliError::from_status(status, &about, &coordinator.url)),
        }
    }
}

/// What is on the screen.
struct Shown {
    bar: Option<ProgressBar>,
    interval: Duration,
    printed: Option<(Instant, State, u64)>,
    /// The last message from the coordinator.
    heard: Option<Instant>,
}

impl Shown {
    fn new(output: &Output, interval: Duration) -> Self {
        let bar = (output.is_terminal() && !output.is_for_programs()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stdout_with_hz(10));
            // A template of fixed text; a failure would only mean the default look.
            let template = "{prefix} {bar:24.cyan/blue} step {pos}/{len}  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar
        });
        Self { bar, interval, printed: None, heard: None }
    }

    fn show(&mut self, p: &ProgressView, output: &mut Output) -> Result<(), CliError> {
        self.heard = Some(Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_length(p.steps);
            bar.set_position(p.step);
            bar.set_prefix(format!("{} {}", p.job, p.state));
            bar.set_message(message(p));
            return Ok(());
        }
        let due = output.is_for_programs()
            || p.state.is_final()
            || self
                .printed
                .is_none_or(|(at, state, epoch)| state != p.state || epoch != p.epoch || at.elapsed() >= self.interval);
        if due {
            self.printed = Some((Instant::now(), p.state, p.epoch));
            output.item(p, || line(p))?;
        }
        Ok(())
    }

    fn pause(&self, why: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(why.to_owned());
        }
    }

    fn finish(&self, p: &ProgressView, output: &mut Output) -> Result<(), CliError> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            output.text(&line(p))?;
        }
        Ok(())
    }
}

/// What stands behind the bar.
fn message(p: &ProgressView) -> String {
    if p.step == 0 || p.state != State::Running {
        return p.reason.clone();
    }
    format!("epoch {}/{}  {}", p.epoch, p.epochs, numbers(p))
}

/// One plain line.
pub(crate) fn line(p: &ProgressView) -> String {
    let head = format!("{:<9} epoch {}/{}  step {}/{}", p.state, p.epoch, p.epochs, p.step, p.steps);
    let numbers = if p.step == 0 { String::new() } else { format!("  {}", numbers(p)) };
    let reason = if p.reason.is_empty() { String::new() } else { format!("  {}", p.reason) };
    head + &numbers + &reason
}
