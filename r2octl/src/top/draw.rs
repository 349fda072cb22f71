//! The screen.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Margin, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Cell, Clear, Gauge, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use super::state::State as Top;
use crate::format::{count, duration, number, tau};
use crate::table::{predicate, ranges};
use crate::view::{JobView, ProgressView, State};

/// A sparkline's values are whole numbers.
const LEVELS: f64 = 1_000.0;

pub(super) fn draw(frame: &mut Frame<'_>, top: &Top) {
    let area = frame.area();
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    header(frame, head, top);
    if top.whole {
        job(frame, body, top);
    } else {
        let jobs_rows = (top.look.jobs.len().clamp(1, 8) + 3) as u16;
        let workers_rows = (top.look.workers.len().clamp(1, 8) + 3) as u16;
        let parts = [Constraint::Length(jobs_rows), Constraint::Min(8), Constraint::Length(workers_rows)];
        let [above, middle, below] = Layout::vertical(parts).areas(body);
        jobs(frame, above, top);
        job(frame, middle, top);
        fleet(frame, below, top);
    }
    let keys = " q leave   ↑↓ choose a job   enter whole job   ? help";
    frame.render_widget(Paragraph::new(keys).style(dim(top)), foot);
    if top.help {
        help(frame, area, top);
    }
}

fn coloured(top: &Top, colour: Color) -> Style {
    if top.colours { Style::default().fg(colour) } else { Style::default() }
}

fn dim(top: &Top) -> Style {
    if top.colours { Style::default().fg(Color::DarkGray) } else { Style::default() }
}

fn state_style(top: &Top, state: State) -> Style {
    let colour = match state {
        State::Running | State::Starting => Color::Blue,
        State::Succeeded => Color::Green,
        State::Failed => Color::Red,
        State::Queued | State::Paused => Color::Yellow,
        State::Cancelled | State::Unknown => Color::DarkGray,
    };
    coloured(top, colour)
}

fn block<'a>(title: impl Into<Line<'a>>) -> Block<'a> {
    Block::bordered().border_type(BorderType::Rounded).title(title)
}

fn header(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let mut line = vec![Span::styled(" R2O ", bold), Span::styled(top.url.clone(), dim(top)), Span::raw("  ")];
    match top.away {
        Some(since) => line.push(Span::styled(
            format!("no answer for {}, trying again", duration(since.elapsed().as_secs_f64())),
            coloured(top, Color::Red).add_modifier(Modifier::BOLD),
        )),
        None if !top.asked => line.push(Span::raw("connecting")),
        None => {
            let running = top.look.jobs.iter().filter(|job| job.state == State::Running).count();
            let training = top.look.workers.iter().filter(|worker| worker.state == "training").count();
            line.push(Span::raw(format!(
                "{} ({running} running)  {} ({training} training)",
                count(top.look.jobs.len(), "job"),
                count(top.look.workers.len(), "worker"),
            )));
        }
    }
    frame.render_widget(Line::from(line), area);
}

fn jobs(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    if top.look.jobs.is_empty() {
        let text = if top.asked { "no jobs yet: r2octl submit -f job.yaml" } else { "" };
        frame.render_widget(Paragraph::new(text).style(dim(top)).block(block(" Jobs ")), area);
        return;
    }
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let rows = top.look.jobs.iter().map(|job| {
        let p = &job.progress;
        let once = |text: String| right(if p.k == 0 { "-".to_owned() } else { text });
        let share = if job.steps == 0 { 0.0 } else { p.step as f64 / job.steps as f64 * 100.0 };
        Row::new([
            Cell::from(job.name.clone()),
            Cell::from(job.state.to_string()).style(state_style(top, job.state)),
            right(format!("{}/{}", p.step, job.steps)),
            right(format!("{share:.1}%")),
            once(number(p.loss)),
            once(number(p.images_per_second)),
            right(if job.state == State::Running && p.eta_seconds > 0.0 {
                duration(p.eta_seconds)
            } else {
                "-".into()
            }),
            Cell::from(format!(" {}", job.reason)),
        ])
    });
    let widths = [
        Constraint::Length(18),
        Constraint::Length(9),
        Constraint::Length(13),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Min(10),
    ];
    let head = ["NAME", "STATE", "STEP", "DONE", "LOSS", "IMAGES/S", "ETA", " WHY"];
    let head = head
        .iter()
        .enumerate()
        .map(|(i, name)| if (2..7).contains(&i) { right((*name).to_owned()) } else { Cell::from(*name) });
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(dim(top)))
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED))
        .highlight_symbol("▸")
        .block(block(" Jobs "));
    let at = top.job().and_then(|job| top.look.jobs.iter().position(|one| one.name == job.name));
    frame.render_stateful_widget(table, area, &mut TableState::default().with_selected(at));
}

fn job(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let Some(job) = top.job() else {
        frame.render_widget(block(" Job "), area);
        return;
    };
    let title = Line::from(vec![
        Span::raw(" "),
        Span::styled(job.name.clone(), Style::default().add_modifier(Modifier::BOLD)),
        Span::raw(" "),
        Span::styled(job.state.to_string(), state_style(top, job.state)),
        Span::raw(" "),
    ]);
    let outer = block(title);
    let inner = outer.inner(area).inner(Margin::new(1, 0));
    frame.render_widget(outer, area);
    let hint = job.why.hint.as_deref();
    let words = 1 + u16::from(hint.is_some());
    let curve = if inner.height > 16 { 5 } else { 3 };
    let parts = [
        Constraint::Length(words),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(curve),
        Constraint::Min(0),
    ];
    let [why, gauge, facts, curves, events] = Layout::vertical(parts).areas(inner);
    let mut text = vec![Line::raw(predicate(job.state, &job.reason))];
    text.extend(hint.map(|hint| Line::styled(format!("try: {hint}"), coloured(top, Color::Yellow))));
    frame.render_widget(Paragraph::new(text), why);
    let share = if job.steps == 0 { 0.0 } else { (job.progress.step as f64 / job.steps as f64).clamp(0.0, 1.0) };
    let p = &job.progress;
    let label = format!("step {}/{}  epoch {}/{}  {:.1}%", p.step, job.steps, p.epoch, p.epochs, share * 100.0);
    // The bar is of its background's colour where there are no colours: reversed blanks.
    let bar = Gauge::default().ratio(share).label(label).gauge_style(coloured(top, Color::Blue));
    frame.render_widget(bar, gauge);
    frame.render_widget(numbers(job), facts);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(curves);
    sparkline(frame, left, top, ("loss", |p| p.loss), Color::Cyan);
    sparkline(frame, right, top, ("images/s", |p| p.images_per_second), Color::Green);
    self::events(frame, events, top);
}

fn numbers(job: &JobView) -> Line<'static> {
    let p = &job.progress;
    if p.k == 0 {
        return Line::raw("no step yet");
    }
    Line::raw(format!(
        "K {}  tau {}  lr {}  gradient {}  regions {}  generation {}  saved {}",
        p.k,
        tau(p.tau),
        number(p.learning_rate),
        number(p.gradient_norm),
        number(p.valid_regions),
        job.generation,
        job.checkpoint_step.map_or("-".to_owned(), |step| step.to_string()),
    ))
}

/// The last steps that fit, between the least and the greatest of them.
fn sparkline(
    frame: &mut Frame<'_>,
    area: Rect,
    top: &Top,
    (name, value): (&str, fn(&ProgressView) -> f64),
    colour: Color,
) {
    let values: Vec<f64> = top.steps.iter().map(value).filter(|v| v.is_finite()).collect();
    let shown = &values[values.len().saturating_sub(usize::from(area.width))..];
    let (low, high) = shown.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let title = match shown.last() {
        Some(last) => format!("{name} {} (from {} to {})", number(*last), number(low), number(high)),
        None => format!("{name} -"),
    };
    let level = |v: &f64| {
        let share = if high > low { (v - low) / (high - low) } else { 0.5 };
        // The least value still has a mark.
        (LEVELS * (0.12 + 0.88 * share)) as u64
    };
    let bars: Vec<u64> = shown.iter().map(level).collect();
    let line = Sparkline::default().data(bars).max(LEVELS as u64).style(coloured(top, colour));
    frame.render_widget(line.block(Block::new().title(Line::styled(title, dim(top)))), area);
}

fn events(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let room = usize::from(area.height.saturating_sub(1));
    let newest = top.look.events.iter().rev().take(room).map(|event| {
        let style = if event.warning { coloured(top, Color::Red) } else { Style::default() };
        let time = event.time.get(11..19).unwrap_or(&event.time).to_owned();
        let mark = if event.warning { "!" } else { " " };
        Line::from(vec![
            Span::styled(time, dim(top)),
            Span::styled(format!(" {mark} {:<20} ", event.reason), style),
            Span::raw(event.message.clone()),
        ])
    });
    let lines: Vec<Line<'_>> = [Line::styled("events, the newest first", dim(top))].into_iter().chain(newest).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn fleet(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    if top.look.workers.is_empty() {
        let text = if top.asked { "no workers: r2o-worker run --coordinator URL" } else { "" };
        frame.render_widget(Paragraph::new(text).style(dim(top)).block(block(" Fleet ")), area);
        return;
    }
    let rows = top.look.workers.iter().map(|w| {
        let style = match w.state.as_str() {
            "training" => coloured(top, Color::Green),
            "joining" => coloured(top, Color::Yellow),
            _ => dim(top),
        };
        let job = w.job.clone().unwrap_or_else(|| "-".to_owned());
        let cells = [w.name.clone(), w.state.clone(), job, ranges(&w.lanes), w.device.clone(), w.address.clone()];
        Row::new(cells.into_iter().enumerate().map(move |(i, text)| {
            let cell = Cell::from(text);
            if i == 1 { cell.style(style) } else { cell }
        }))
    });
    let widths = [
        Constraint::Length(20),
        Constraint::Length(9),
        Constraint::Length(18),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Min(10),
    ];
    let hidden = top.look.workers.len().saturating_sub(usize::from(area.height.saturating_sub(3)));
    let title = if hidden > 0 { format!(" Fleet, {hidden} more ") } else { " Fleet ".to_owned() };
    let head = Row::new(["WORKER", "STATE", "JOB", "LANES", "DEVICE", "ADDRESS"]).style(dim(top));
    frame.render_widget(Table::new(rows, widths).header(head).block(block(title)), area);
}

const HELP: &str = "q, ctrl-c    leave
↑ ↓, k j     choose a job
enter        the chosen job alone, and back
esc          back, or leave
?            this help

Asks the coordinator every second. `r2octl why JOB` says what a job waits for,
`r2octl watch JOB` follows it in lines. NO_COLOR=1 takes the colours away.";

fn help(frame: &mut Frame<'_>, area: Rect, _top: &Top) {
    let (width, height) = (area.width.min(82), area.height.min(12));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }).block(block(" Keys ")), place);
}

#[cfg(test)]
mod tests {
    use r2o_proto::v1;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::Look;
    use super::*;
    use crate::view::{EventView, WorkerView};

    fn progress(step: u64) -> v1::Progress {
        let (k, state) = (8, v1::JobState::Running.into());
        v1::Progress {
            step,
            steps: 40,
            epochs: 4,
            epoch: 1,
            k,
            state,
            loss: 4.0 / step as f64,
            images_per_second: 90.0,
            tau: 0.99,
            ..Default::default()
        }
    }

    fn job(name: &str, state: v1::JobState) -> JobView {
        let why = v1::Reason { word: "W".into(), sentence: "trains on 1 worker".into(), hint: String::new() };
        JobView::from(v1::Job {
            name: name.into(),
            state: state.into(),
            steps: 40,
            reason: why.sentence.clone(),
            why: Some(why),
            progress: Some(progress(10)),
            generation: 3,
            ..v1::Job::default()
        })
    }

    fn known() -> Top {
        let mut top = Top::new("http://127.0.0.1:7070", true);
        let worker = v1::Worker {
            name: "alpha".into(),
            state: "training".into(),
            job: "b".into(),
            lanes: vec![0, 1, 2, 5],
            device: "cpu".into(),
            ..Default::default()
        };
        let event = v1::Event {
            unix_ms: 1_700_000_000_000,
            reason: "WorkerLost".into(),
            message: "beta missed its lease".into(),
            warning: true,
        };
        top.take(Look {
            jobs: vec![job("a", v1::JobState::Succeeded), job("b", v1::JobState::Running)],
            workers: vec![WorkerView::from(worker)],
            job: Some("b".into()),
            steps: (1..=10).map(|step| ProgressView::from(progress(step))).collect(),
            events: vec![EventView::from(event)],
        });
        top
    }

    fn screen(top: &Top, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top)).unwrap();
        terminal
    }

    #[test]
    fn the_screen_shows_jobs_curves_workers_and_events() {
        let terminal = screen(&known(), 100, 32);
        let text = terminal.backend().to_string();
        for wanted in [
            "▸b",
            "Running",
            "10/40",
            "25.0%",
            "loss 0.4000 (from 0.4000 to 4.000)",
            "images/s 90.00",
            "alpha",
            "0-2,5",
            "22:13:20",
            "! WorkerLost",
            "trains on 1 worker",
            "█",
        ] {
            assert!(text.contains(wanted), "`{wanted}` is not in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_and_an_empty_fleet_are_drawn_too() {
        for (width, height) in [(1, 1), (20, 5), (40, 12), (300, 80)] {
            screen(&known(), width, height);
            let mut whole = known();
            whole.toggle_whole();
            whole.toggle_help();
            screen(&whole, width, height);
        }
        let mut empty = Top::new("u", false);
        empty.take(Look::default());
        let text = screen(&empty, 80, 24).backend().to_string();
        assert!(text.contains("no jobs yet: r2octl submit -f job.yaml") && text.contains("no workers"), "{text}");
    }

    #[test]
    fn without_colours_nothing_is_coloured() {
        let mut plain = known();
        plain.colours = false;
        let terminal = screen(&plain, 100, 32);
        let cells = terminal.backend().buffer().content();
        assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        assert!(screen(&known(), 100, 32).backend().buffer().content().iter().any(|cell| cell.fg == Color::Blue));
    }

    #[test]
    fn a_coordinator_that_is_away_is_said_and_what_was_known_stays() {
        let mut top = known();
        top.lose();
        let text = screen(&top, 100, 32).backend().to_string();
        assert!(text.contains("no answer for 0s, trying again") && text.contains("alpha"), "{text}");
        top.take(Look::default());
        assert!(!screen(&top, 100, 32).backend().to_string().contains("no answer"));
    }

    #[test]
    fn the_choice_moves_and_stays_within_the_list() {
        let mut top = known();
        top.step(-5);
        assert_eq!(top.chosen().as_deref(), Some("b"), "what is not over comes first");
        top.step(1);
        top.step(1);
        assert_eq!(top.chosen().as_deref(), Some("a"));
        assert!(top.back());
    }
}
