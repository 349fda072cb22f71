//! The first page: all jobs and the fleet.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::html;
use r2o_proto::v1::Job;

use super::access::Visitor;
use super::layout::{self, Frame};
use super::parts::{self, Part};
use super::words::has_ended;
use super::{Page, Shared};

/// Jobs that are shown: those that are not over, then those that ended last.
const JOBS_SHOWN: usize = 50;

pub(super) async fn show(State(page): State<Shared>, Extension(visitor): Extension<Visitor>) -> Response {
    let [summary, jobs, workers] = parts(&page).await;
    let main = html! {
        h1.hidden { "Overview" }
        section aria-label="Summary" { div id=(summary.id) { (summary.html) } }
        section aria-labelledby="jobs-title" { h2 #jobs-title { "Jobs" } div id=(jobs.id) { (jobs.html) } }
        section aria-labelledby="fleet-title" { h2 #fleet-title { "Fleet" } div id=(workers.id) { (workers.html) } }
    };
    let frame = Frame { title: "Overview", live: Some("/live".to_owned()), charts: false, main };
    layout::answer(layout::page(&visitor, &frame))
}

/// What changes.
pub(super) async fn parts(page: &Page) -> [Part; 3] {
    let mut jobs: Vec<Job> = page.jobs.board.entries().iter().map(|entry| entry.job()).collect();
    let now = page.jobs.board.entries().first().map_or(0, |entry| entry.unix_ms());
    let workers = page.workers().await;
    let summary = parts::summary(&jobs, &workers);
    jobs.sort_by_key(|job| {
        let ended = has_ended(job.state());
        (ended, if ended { -job.ended_unix_ms } else { job.submitted_unix_ms })
    });
    let more = jobs.len().saturating_sub(JOBS_SHOWN);
    jobs.truncate(JOBS_SHOWN);
    let shown: Vec<_> = workers.iter().collect();
    [summary, parts::jobs(&jobs, now, more), parts::workers(&shown, false)]
}
