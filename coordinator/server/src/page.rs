//! The status page: what `r2octl` shows, for a browser.
//!
//! ```text
//! request ─► access (who asks, and what that one may) ─┬─► overview, job ─► HTML, whole without a script
//!                                                      ├─► live ─► the same HTML in parts, as it changes
//!                                                      ├─► curves, gallery, report ─► numbers and pictures
//!                                                      └─► steer ─► the service of people
//! ```
//!
//! The server renders everything; the script replaces parts of the page by newer ones and draws the curves. Nothing is
//! loaded from another host, and nothing but the files of `assets` runs.

mod access;
mod assets;
mod curves;
mod fresh;
mod gallery;
mod job;
mod layout;
mod live;
mod overview;
mod parts;
mod steer;
mod words;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use r2o_proto::v1::jobs_server::Jobs;
use r2o_proto::v1::{FleetRequest, Worker};
use r2o_storage::run::REPORT;
use tokio::sync::Semaphore;

use crate::api::JobsService;
use crate::board::Entry;
use crate::tokens::Tokens;
use access::{Sessions, Visitor};
use fresh::{Cache, Fresh};

/// Bytes of a form.
const FORM_BYTES: usize = 16 << 10;
/// Bytes of a report that is shown; a larger one is read by `r2octl report`.
const REPORT_BYTES: usize = 64 << 20;
/// Pages that are kept up to date at one time.
const STREAMS: usize = 256;
/// Jobs whose pictures and older curves are kept in memory.
const JOBS_KEPT: usize = 16;

/// Nothing runs, loads or frames the page but itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The report is one file with its own styles and one line of script; it runs apart from the page.
const REPORT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts";

/// What decides who may look and who may steer.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) tokens: Tokens,
    /// Whether pages go out over TLS.
    pub(crate) tls: bool,
    /// Whether only this machine reaches the page.
    pub(crate) loopback: bool,
}

/// What all requests share.
pub(crate) struct Page {
    jobs: JobsService,
    door: Door,
    sessions: Sessions,
    fleet: Fresh<Vec<Worker>>,
    galleries: Cache<Arc<gallery::Gallery>>,
    checkpoints: Cache<Vec<parts::Checkpoint>>,
    pasts: Cache<curves::Past>,
    streams: Arc<Semaphore>,
}

type Shared = Arc<Page>;

/// The answer when there is no such job.
struct Missing(Box<Response>);

impl IntoResponse for Missing {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// The page's routes.
pub(crate) fn router(jobs: JobsService, door: Door) -> Router {
    let page = Arc::new(Page {
        jobs,
        door,
        sessions: Sessions::default(),
        fleet: Fresh::default(),
        galleries: Cache::new(JOBS_KEPT),
        checkpoints: Cache::new(JOBS_KEPT),
        pasts: Cache::new(JOBS_KEPT),
        streams: Arc::new(Semaphore::new(STREAMS)),
    });
    let guarded = Router::new()
        .route("/", get(overview::show))
        .route("/live", get(live::overview))
        .route("/jobs/{job}", get(job::show))
        .route("/jobs/{job}/live", get(live::job))
        .route("/jobs/{job}/curves", get(curves::show))
        .route("/jobs/{job}/masks/{picture}", get(gallery::picture))
        .route("/jobs/{job}/report", get(report))
        .route("/jobs/{job}/{action}", post(steer::act))
        .fallback(nowhere)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&page), access::guard));
    Router::new()
        .route("/sign-in", get(access::sign_in_form).post(access::sign_in))
        .route("/sign-out", post(access::sign_out))
        .route("/assets/{version}/{name}", get(assets::get))
        .merge(guarded)
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(middleware::map_response(headers))
        .with_state(page)
}

/// What every answer says.
async fn headers(mut response: Response) -> Response {
    let said = response.headers_mut();
    let all = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in all {
        said.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Page {
    /// The job of this name; the answer to the request when there is none.
    fn entry(&self, name: &str, visitor: &Visitor) -> Result<Arc<Entry>, Missing> {
        self.jobs.board.get(name).ok_or_else(|| {
            let page = layout::message(visitor, "No such job", &format!("There is no job {name} here."));
            Missing(Box::new((StatusCode::NOT_FOUND, page).into_response()))
        })
    }

    /// The workers, as of a moment ago: many pages ask, the actor is asked seldom.
    async fn workers(&self) -> Arc<Vec<Worker>> {
        let asked = async {
            let answer = self.jobs.fleet(tonic::Request::new(FleetRequest {})).await;
            answer.map(|answer| answer.into_inner().workers).unwrap_or_default()
        };
        self.fleet.get(fresh::SOON, || asked).await
    }
}

async fn nowhere(Extension(visitor): Extension<Visitor>) -> Response {
    (StatusCode::NOT_FOUND, layout::message(&visitor, "No such page", "There is nothing at this address."))
        .into_response()
}

/// The report of a job that has ended.
async fn report(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
) -> Result<Response, Missing> {
    let entry = page.entry(&name, &visitor)?;
    let none =
        |status: StatusCode, what: String| (status, layout::message(&visitor, "No report", &what)).into_response();
    Ok(match entry.store.get_if_exists(REPORT).await {
        Ok(Some(html)) if html.len() <= REPORT_BYTES => {
            let said =
                [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, REPORT_POLICY)];
            (said, html).into_response()
        }
        Ok(Some(_)) => none(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The report is too large for the page; `r2octl report {name}` writes it to a file."),
        ),
        Ok(None) => none(StatusCode::NOT_FOUND, "The report is written when the job ends.".to_owned()),
        Err(error) => none(StatusCode::BAD_GATEWAY, format!("The report cannot be read: {error}")),
    })
}
