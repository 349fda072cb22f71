//! What a person tells a job by a button.

use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use r2o_proto::v1::jobs_server::Jobs;
use r2o_proto::v1::{CancelRequest, CheckpointRequest, PauseRequest, RequeueRequest, ResumeRequest};
use serde::Deserialize;
use tonic::{Code, Request, Status};

use super::access::Visitor;
use super::words::segment;
use super::{Shared, layout};

/// Letters of a reason.
const REASON: usize = 500;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    reason: String,
}

/// Carries out what the button says, by the service that r2octl uses too, and leads back to the job.
pub(super) async fn act(
    State(page): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path((name, action)): Path<(String, String)>,
    Form(said): Form<Said>,
) -> Response {
    let jobs = &page.jobs;
    let reason: String = said.reason.trim().chars().filter(|c| !c.is_control()).take(REASON).collect();
    let job = name.clone();
    let done = match action.as_str() {
        "pause" => jobs.pause(Request::new(PauseRequest { name: job, reason })).await.map(drop),
        "resume" => jobs.resume(Request::new(ResumeRequest { name: job })).await.map(drop),
        "requeue" => jobs.requeue(Request::new(RequeueRequest { name: job })).await.map(drop),
        "checkpoint" => jobs.checkpoint(Request::new(CheckpointRequest { name: job })).await.map(drop),
        "cancel" => jobs.cancel(Request::new(CancelRequest { name: job, reason })).await.map(drop),
        _ => Err(Status::not_found(format!("a job knows no `{action}`"))),
    };
    match done {
        Ok(()) => Redirect::to(&format!("/jobs/{}", segment(&name))).into_response(),
        Err(status) => (code(&status), layout::message(&visitor, "Not done", status.message())).into_response(),
    }
}

fn code(status: &Status) -> StatusCode {
    match status.code() {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
