//! Two coordinators on one journal: one leads, and whoever was superseded changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use r2o_coordinator::{Ended, Handle, Options, Service};
use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_telemetry::{TaskHandle, TaskKind, spawn};

use super::kit::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Who granted tickets of which generation.
#[derive(Default, Clone)]
struct Grants(Arc<Mutex<BTreeMap<u64, Vec<String>>>>);

impl Grants {
    fn note(&self, generation: u64, coordinator: &str) {
        let mut grants = self.0.lock().unwrap();
        let by = grants.entry(generation).or_default();
        if by.iter().all(|known| known != coordinator) {
            by.push(coordinator.to_owned());
        }
    }

    fn by(&self, coordinator: &str) -> bool {
        self.0.lock().unwrap().values().flatten().any(|by| by == coordinator)
    }

    fn check(&self) {
        let grants = self.0.lock().unwrap();
        assert!(grants.values().all(|by| by.len() == 1), "two coordinators grant in one generation: {grants:?}");
    }

    /// A worker obeys a coordinator as long as that serves.
    fn work(&self, url: &str, name: &str) -> TaskHandle<()> {
        let (grants, url, name) = (self.clone(), url.to_owned(), name.to_owned());
        spawn("noting worker", TaskKind::Work, async move {
            let Some(mut worker) = FakeWorker::try_join(&url, &name).await else { return };
            while let Some(order) = worker.obey().await {
                if let To::Ticket(ticket) = order {
                    grants.note(ticket.generation, &url);
                }
            }
        })
    }
}

fn options(state: &str, lease: Duration) -> Options {
    let mut options = Options::new(state);
    options.core.join_window_ms = 10;
    options.core.pause_ms = 10;
    options.leader_lease = lease;
    options.flush = Duration::from_millis(20);
    options.standby = true;
    options
}

fn endless(place: &Place) -> serde_json::Value {
    let mut job = place.job("a", 1_000_000);
    job["spec"]["checkpoint"]["every"]["epochs"] = 1_000_000.into();
    job
}

/// How a lead ends: without a word, as when a machine goes, or by giving the lease back.
async fn end(handle: Handle, silently: bool) {
    if silently {
        drop(handle);
    } else {
        handle.shutdown().await;
    }
}

/// Starts coordinators on the state again and again until the two of them have led `leads` times. A lead ends once its
/// coordinator has granted a ticket, or lost the lead.
async fn supervise(
    me: u64,
    state: String,
    job: serde_json::Value,
    grants: Grants,
    lease: Duration,
    leads: Arc<Mutex<u64>>,
) {
    let mut random = me;
    while *leads.lock().unwrap() > 0 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut options = options(&state, lease);
        options.standby = !(random >> 33).is_multiple_of(3);
        let standby = options.standby;
        let mut handle = match Service::start(options).await {
            Ok(handle) => handle,
            Err(error) => {
                // Who waits may still lose a race, and then waits again.
                let words: &[&str] =
                    if standby { &["another coordinator"] } else { &["another coordinator", "--standby"] };
                names(&error.to_string(), words);
                tokio::task::yield_now().await;
                continue;
            }
        };
        let url = handle.url();
        let worker = grants.work(&url, &format!("w{me}"));
        let mut granted = tokio::time::interval(Duration::from_millis(5));
        let submitted = submit(&handle, &job).await;
        let ended = loop {
            tokio::select! {
                ended = handle.ended() => break Some(ended),
                _ = granted.tick() => if submitted.is_ok() && grants.by(&url) { break None },
            }
        };
        match ended {
            Some(Ended::LostLeadership(reason)) => names(&reason, &["another coordinator", "no more"]),
            Some(other) => panic!("{other:?}"),
            None => {
                let mut leads = leads.lock().unwrap();
                *leads = leads.saturating_sub(1);
            }
        }
        end(handle, (random >> 40).is_multiple_of(2)).await;
        worker.cancel();
    }
}

async fn to_and_fro(state: &str, job: &serde_json::Value, leads: u64, lease: Duration) {
    let (grants, leads) = (Grants::default(), Arc::new(Mutex::new(leads)));
    let one = |me| {
        let run = supervise(me, state.to_owned(), job.clone(), grants.clone(), lease, Arc::clone(&leads));
        spawn("supervisor", TaskKind::Work, run)
    };
    let (first, second) = (one(1), one(2));
    first.await.unwrap();
    second.await.unwrap();
    grants.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn never_do_two_grant_in_one_generation_and_the_loser_waits_or_stops() {
    let place = Place::new();
    to_and_fro(&text(&place.path("state")), &endless(&place), 100, Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_two_on_s3() {
    let Ok(url) = std::env::var("R2O_TEST_S3_URL") else {
        println!("not run: two coordinators on S3: needs an S3 server (R2O_TEST_S3_URL and AWS_*)");
        return;
    };
    let place = Place::new();
    let state = format!("{}/{}", url.trim_end_matches('/'), uuid::Uuid::new_v4());
    to_and_fro(&state, &endless(&place), 20, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_a_day_ahead_or_behind_keeps_nobody_from_leading() {
    let place = Place::new();
    let (state, lease) = (text(&place.path("state")), Duration::from_millis(300));
    let now = SystemTime::now();
    // Each finds a lease that ends in a day, or ended a day ago, by its own clock.
    for clock in [now + DAY, now, now - DAY, now + DAY] {
        let mut options = options(&state, lease);
        options.clock = clock;
        let start = Instant::now();
        let handle = Service::start(options).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
        let job = endless(&place);
        submit(&handle, &job).await.unwrap();
        let from = get(&handle, "a").await.generation;
        // The leases of workers hold, too.
        FakeWorker::join(&handle, "w").await.work();
        until(&handle, "a", |p| p.generation > from && p.step > 20).await;
        end(handle, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_whose_clock_is_a_day_ahead_supersedes_and_the_other_stops() {
    let place = Place::new();
    let (state, grants) = (text(&place.path("state")), Grants::default());
    let mut first = Service::start(options(&state, Duration::from_millis(500))).await.unwrap();
    submit(&first, &endless(&place)).await.unwrap();
    let _old = grants.work(&first.url(), "w");
    until(&first, "a", |p| p.step > 4).await;
    let mut ahead = options(&state, Duration::from_millis(500));
    (ahead.standby, ahead.clock) = (false, SystemTime::now() + DAY);
    let second = Service::start(ahead).await.expect("by its clock the lease is over");
    let Ended::LostLeadership(reason) = first.ended().await else { panic!() };
    names(&reason, &["another coordinator took over", "no more"]);
    let _new = grants.work(&second.url(), "w");
    until(&second, "a", |p| p.step > 4).await;
    first.shutdown().await;
    grants.check();
}

/// A coordinator in a process of its own.
struct Process(Child);

impl Process {
    fn start(place: &Place, name: &str) -> Self {
        let log = std::fs::File::create(place.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_r2o-coordinator"));
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--leader-lease",
            "1",
            "--worker-lease",
            "1",
            "--join-window",
            "0.01",
        ]);
        command.arg("--state").arg(place.path("state")).arg("--address-file").arg(place.path(name));
        Self(command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Looks until `look` gives something.
    async fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Child) -> Option<T>) -> T {
        let start = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(found) = look(&mut self.0) {
                return found;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All files below a folder, by path.
/// Hashes of all files.
fn files(folder: &Path) -> BTreeMap<String, blake3::Hash> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(text(&path), blake3::hash(&std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_was_stopped_and_superseded_changes_nothing_when_it_goes_on() {
    let place = Place::new();
    let mut stopped = Process::start(&place, "stopped");
    let address = place.path("stopped");
    let url = stopped.until("an address", |_| std::fs::read_to_string(&address).ok()).await.trim().to_owned();
    let mut jobs = r2o_proto::v1::jobs_client::JobsClient::connect(url.clone()).await.unwrap();
    let spec = endless(&place).to_string();
    jobs.submit(r2o_proto::v1::SubmitRequest { spec, dry_run: false }).await.unwrap();
    let grants = Grants::default();
    let _old = grants.work(&url, "w");
    stopped.until("a ticket", |_| grants.by(&url).then_some(())).await;
    // What its worker goes on to report waits in its sockets. A file that it is about to put into its place lands when it goes
    // on, as a request on its way to an object store would: then it is stopped at another moment.
    stopped.signal("-STOP");
    while files(&place.path("a")).keys().chain(files(&place.path("state")).keys()).any(|file| file.contains('#')) {
        stopped.signal("-CONT");
        stopped.signal("-STOP");
    }

    let mut options = options(&text(&place.path("state")), Duration::from_secs(1));
    options.flush = Duration::from_millis(50);
    let handle = Service::start(options).await.unwrap();
    let _new = grants.work(&handle.url(), "w");
    until(&handle, "a", |p| p.generation == 2 && p.step > 50).await;
    handle.shutdown().await;
    let before = (files(&place.path("state")), files(&place.path("a")));

    stopped.signal("-CONT");
    let status = stopped.until("its end", |child| child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(place.path("stopped.log")).unwrap();
    names(&log, &["another coordinator took over the state", "this one leads no more"]);
    assert_eq!(before, (files(&place.path("state")), files(&place.path("a"))));
    grants.check();
}
