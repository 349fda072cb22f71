//! `r2octl top`: jobs, curves, fleet and events in a terminal, as they change.

mod draw;
mod state;

use std::io::IsTerminal;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use r2o_proto::v1::{EventsRequest, FleetRequest, ListRequest, WatchRequest};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use self::state::{Look, State};
use crate::cli::Top;
use crate::client::Coordinator;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::view::{EventView, JobView, ProgressView, WorkerView};

/// How often the coordinator is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stream of what happened so far may be silent before it counts as read.
const SILENCE: Duration = Duration::from_millis(200);
/// The frame that is printed where there is no terminal.
const FRAME: (u16, u16) = (100, 40);

/// Shows the fleet until a person leaves; without a terminal, or with `--once`, prints how it stands and ends.
pub(crate) async fn top(url: &str, args: Top, output: &mut Output) -> Result<(), CliError> {
    let mut state = State::new(url, std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    state.choose(args.job.as_deref());
    if args.once || !output.is_terminal() || !std::io::stdin().is_terminal() {
        let look = ask(url, state.chosen(), state.known()).await?;
        state.take(look);
        return output.text(&frame(&state)?);
    }
    let mut terminal = ratatui::try_init().map_err(|e| CliError::failure("cannot use this terminal").because(e))?;
    let outcome = run(url, &mut state, &mut terminal).await;
    ratatui::restore();
    outcome
}

/// One frame as text.
fn frame(state: &State) -> Result<String, CliError> {
    let (width, height) = FRAME;
    let failed = |e: std::convert::Infallible| CliError::failure("cannot draw").because(e);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(failed)?;
    terminal.draw(|frame| draw::draw(frame, state)).map_err(failed)?;
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width)).map(|row| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    Ok(lines.collect::<Vec<_>>().join("\n").trim_end().to_owned())
}

async fn run(url: &str, state: &mut State, terminal: &mut ratatui::DefaultTerminal) -> Result<(), CliError> {
    let mut keys = EventStream::new();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        terminal.draw(|frame| draw::draw(frame, state))?;
        // A key is not kept waiting by a coordinator that does not answer.
        let looked = async {
            every.tick().await;
            ask(url, state.chosen(), state.known()).await
        };
        let mut looked = std::pin::pin!(looked);
        let happened = loop {
            tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(event)) => break Happened::Key(event),
                    Some(Err(e)) => return Err(e.into()),
                    None => return Ok(()),
                },
                look = &mut looked => break Happened::Look(look),
            }
        };
        match happened {
            Happened::Look(Ok(look)) => state.take(look),
            Happened::Look(Err(e)) if e.code() == Exit::Unreachable => state.lose(),
            Happened::Look(Err(e)) => return Err(e),
            Happened::Key(event) => {
                if press(state, &event) {
                    return Ok(());
                }
            }
        }
    }
}

enum Happened {
    Key(Event),
    Look(Result<Look, CliError>),
}

/// Does what a key asks for; true: to leave.
fn press(state: &mut State, event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    if key.kind != KeyEventKind::Press {
        return false;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') => return true,
        KeyCode::Esc => return state.back(),
        KeyCode::Down | KeyCode::Char('j') => state.step(1),
        KeyCode::Up | KeyCode::Char('k') => state.step(-1),
        KeyCode::Enter => state.toggle_whole(),
        KeyCode::Char('?') => state.toggle_help(),
        _ => {}
    }
    false
}

/// Asks for all that is shown: jobs and workers, and of one job its events and the steps that are not known.
async fn ask(url: &str, chosen: Option<String>, known: Option<(String, u64)>) -> Result<Look, CliError> {
    let asked = async {
        let mut coordinator = Coordinator::connect(url).await?;
        let answer = coordinator.jobs.list(ListRequest {}).await;
        let jobs: Vec<JobView> = coordinator.take(answer, "jobs")?.jobs.into_iter().map(JobView::from).collect();
        let answer = coordinator.jobs.fleet(FleetRequest {}).await;
        let workers = coordinator.take(answer, "workers")?.workers.into_iter().map(WorkerView::from).collect();
        let mut look = Look { jobs, workers, ..Look::default() };
        let name = state::pick(&look.jobs, chosen.as_deref()).map(|job| job.name.clone());
        if let Some(name) = name {
            let request = EventsRequest { name: name.clone(), follow: false };
            let answer = coordinator.jobs.events(request).await;
            let mut stream = coordinator.take(answer, "events")?;
            while let Ok(Some(event)) = stream.message().await {
                look.events.push(EventView::from(event));
            }
            // From step 1, for all steps that the coordinator remembers.
            let from = known.filter(|(job, _)| *job == name).map_or(0, |(_, step)| step);
            let request = WatchRequest { name: name.clone(), from_step: from.max(1) };
            let answer = coordinator.jobs.watch(request).await;
            let mut stream = coordinator.take(answer, "progress")?;
            while let Ok(Ok(Some(progress))) = tokio::time::timeout(SILENCE, stream.message()).await {
                look.steps.push(ProgressView::from(progress));
            }
            look.job = Some(name);
        }
        Ok(look)
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(crate::error::unreachable_coordinator(url)))
}
