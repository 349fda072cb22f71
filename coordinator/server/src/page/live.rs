//! Newer parts of a page, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::access::Visitor;
use super::curves::{Columns, json};
use super::parts::Part;
use super::{Missing, Page, Shared, job as one, overview as all};
use crate::board::Entry;

/// How often a page may change.
const PACE: Duration = Duration::from_secs(1);

/// One browser's page.
struct Viewer {
    page: Shared,
    /// Whoever signs out, or whose token is taken away, sees no more.
    headers: HeaderMap,
    /// What each part was when it was sent last.
    sent: HashMap<&'static str, blake3::Hash>,
    pace: Interval,
    /// The page's job, and the number of the progress that comes next; none: the overview.
    job: Option<(Arc<Entry>, u64)>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    /// What is new, some time after the last look; `None`: there will be nothing more.
    async fn look(&mut self) -> Option<Vec<Event>> {
        self.pace.tick().await;
        let visitor = self.page.visitor(&self.headers);
        if !visitor.may_look() {
            return None;
        }
        let mut events = Vec::new();
        match &mut self.job {
            None => {
                let parts = all::parts(&self.page).await;
                events.extend(parts.into_iter().filter_map(|part| self.changed(part)));
            }
            Some((entry, next)) => {
                let (progress, after) = entry.progress.since(*next);
                *next = after;
                let mut columns = Columns::default();
                progress.iter().for_each(|p| columns.take(p));
                if !columns.is_empty() {
                    events.push(Event::default().event("points").data(json(&columns)));
                }
                let parts = one::parts(&self.page, &Arc::clone(entry), visitor).await;
                events.extend(parts.into_iter().filter_map(|part| self.changed(part)));
            }
        }
        Some(events)
    }

    fn changed(&mut self, part: Part) -> Option<Event> {
        let html = part.html.into_string();
        let hash = blake3::hash(html.as_bytes());
        if self.sent.insert(part.id, hash) == Some(hash) {
            return None;
        }
        let data = serde_json::json!({ "id": part.id, "html": html });
        Some(Event::default().event("part").data(data.to_string()))
    }
}

pub(super) async fn overview(State(page): State<Shared>, headers: HeaderMap) -> Response {
    stream(&page, headers, None)
}

pub(super) async fn job(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Missing> {
    let entry = page.entry(&name, &visitor)?;
    // The script asks for the curves after this began: what is in both is the same.
    let next = entry.progress.tail(0);
    Ok(stream(&page, headers, Some((entry, next))))
}

fn stream(page: &Arc<Page>, headers: HeaderMap, job: Option<(Arc<Entry>, u64)>) -> Response {
    let Ok(place) = Arc::clone(&page.streams).try_acquire_owned() else {
        let said = [(header::RETRY_AFTER, "30")];
        return (StatusCode::SERVICE_UNAVAILABLE, said, "too many pages are open: this one is not kept up to date\n")
            .into_response();
    };
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let viewer = Viewer { page: Arc::clone(page), headers, sent: HashMap::new(), pace, job, _place: place };
    let until = page.jobs.stop.clone().cancelled_owned();
    let said = [(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    (said, Sse::new(events(viewer).take_until(until)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
        .into_response()
}

fn events(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let looks = futures::stream::unfold(viewer, |mut viewer| async {
        let events = viewer.look().await?;
        Some((events, viewer))
    });
    looks.flat_map(|events| futures::stream::iter(events.into_iter().map(Ok)))
}
