//! The status page in a real browser and `r2octl top` in a real terminal, beside a real run.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use r2o_e2e::{RUN, demo_job};
use r2o_test_kit::{Fleet, FleetOptions, WorkerOptions, binary, free_port, not_run, repository, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
        || Command::new(program).arg("-V").output().is_ok_and(|output| output.status.success())
}

/// The folder of the browser's script, once its packages are there.
fn browser_tests() -> Option<PathBuf> {
    let folder = repository().join("tests/browser");
    folder.join("node_modules/playwright-core").is_dir().then_some(folder)
}

/// Two workers that train a small job, with the page on a port of its own.
async fn fleet(name: &str) -> Result<(Fleet, String)> {
    let http = format!("127.0.0.1:{}", free_port()?);
    let options = FleetOptions {
        worker: WorkerOptions { threads: 1, audit: false, more: Vec::new() },
        coordinator: vec!["--http".to_owned(), http.clone()],
        ..FleetOptions::default()
    };
    let mut fleet = Fleet::start_with(2, options).await?;
    let mut job = demo_job(name, fleet.folder(), 40)?;
    job.spec.reproducible = false;
    job.spec.fleet.min_workers = 2;
    fleet.submit(&job).await?;
    fleet.wait_step(name, 5, RUN).await?;
    Ok((fleet, format!("http://{http}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_in_a_browser() -> Result<()> {
    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let Some(chromium) = chromium.into_iter().find(|path| Path::new(path).is_file()).filter(|_| has("node")) else {
        not_run("needs chromium and node");
        return Ok(());
    };
    let Some(folder) = browser_tests() else {
        not_run("needs the packages of tests/browser: type `npm ci` there");
        return Ok(());
    };
    let (fleet, url) = fleet("seen").await?;
    let shots = binary("r2octl")?.with_file_name("page");
    std::fs::create_dir_all(&shots)?;
    let mut look = Command::new("node");
    look.arg("look.mjs").args([&url, "seen"]).arg(&shots).arg(chromium).current_dir(&folder);
    let output = run(&mut look)?;
    ensure!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), fleet.logs(10));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).context("look.mjs printed no JSON")?;
    for nothing in ["errors", "strangers", "axe", "unreached", "overflow"] {
        ensure!(found[nothing].as_array().is_some_and(Vec::is_empty), "{nothing}: {:#}", found[nothing]);
    }
    let live = &found["live"];
    ensure!(live["after"].as_u64() > live["before"].as_u64(), "the page stood still: {live:#}");
    ensure!(live["focusStays"] == true && live["theme"] == "light", "{live:#}");
    ensure!(live["masks"].as_u64() >= Some(8) && live["drawnByServer"] == 7, "{live:#}");
    ensure!(found["screenshots"].as_array().is_some_and(|all| all.len() == 9), "{found:#}");
    Ok(())
}

fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run {command:?}"))
}

/// A terminal of its own server, which ends with it.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn open(folder: &Path, command: &str) -> Result<Self> {
        let terminal = Self { socket: folder.join("tmux") };
        terminal.tell(&["new-session", "-d", "-x", "100", "-y", "36", command])?;
        Ok(terminal)
    }

    fn tell(&self, words: &[&str]) -> Result<String> {
        let output = run(Command::new("tmux").arg("-S").arg(&self.socket).args(["-f", "/dev/null"]).args(words))?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until the screen shows all of this, and gives it back.
    async fn shows(&self, wanted: &[&str]) -> Result<String> {
        wait_until(&format!("the screen shows {wanted:?}"), SOON, || async {
            let screen = self.tell(&["capture-pane", "-p"])?;
            Ok(wanted.iter().all(|word| screen.contains(word)).then_some(screen))
        })
        .await
        .with_context(|| self.tell(&["capture-pane", "-p"]).unwrap_or_default())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _may_have_ended = self.tell(&["kill-server"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_a_run_in_a_terminal_and_outlives_its_coordinator() -> Result<()> {
    if !has("tmux") {
        not_run("needs tmux");
        return Ok(());
    }
    let (mut fleet, _) = fleet("topped").await?;
    let (program, url) = (binary("r2octl")?, fleet.coordinator.url.clone());
    let once = run(Command::new(&program).args(["top", "--coordinator", &url]))?;
    let text = String::from_utf8_lossy(&once.stdout).into_owned();
    ensure!(
        once.status.success() && text.contains("topped") && text.contains("loss") && text.contains("worker-1"),
        "{text}"
    );
    ensure!(!text.contains('\u{1b}'), "where there is no terminal there are no colours");
    let terminal = Terminal::open(fleet.folder(), &format!("{} top --coordinator {url}", program.display()))?;
    let screen = terminal.shows(&["topped", "Running", "images/s", "worker-0", "GenerationOpened", "█"]).await?;
    println!("{screen}");
    terminal.tell(&["send-keys", "?"])?;
    terminal.shows(&["choose a job", "NO_COLOR"]).await?;
    terminal.tell(&["send-keys", "Escape"])?;
    terminal.tell(&["send-keys", "Enter"])?;
    wait_until("one job alone", SOON, || async {
        let screen = terminal.tell(&["capture-pane", "-p"])?;
        Ok((screen.contains("topped") && !screen.contains(" Fleet ")).then_some(()))
    })
    .await?;
    terminal.tell(&["resize-window", "-x", "60", "-y", "20"])?;
    terminal.shows(&["topped"]).await?;
    terminal.tell(&["resize-window", "-x", "100", "-y", "36"])?;
    fleet.coordinator.process.kill()?;
    terminal.shows(&["no answer for", "topped"]).await?;
    fleet.restart_coordinator().await?;
    terminal.shows(&["1 job (", "2 workers ("]).await?;
    terminal.tell(&["send-keys", "q"])?;
    wait_until("top leaves", SOON, || async { Ok(terminal.tell(&["capture-pane", "-p"]).is_err().then_some(())) }).await
}
