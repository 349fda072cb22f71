//! The coordinator's web server: probes while it stands by, and pages for whoever may read once it leads.

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use r2o_transport::Peer;

use crate::tokens::Tokens;

/// All pages, behind their guard.
pub(crate) fn guarded(pages: Router, tokens: &Tokens) -> Router {
    pages.layer(from_fn_with_state(tokens.clone(), guard))
}

/// Lets those in who may read.
async fn guard(
    State(tokens): State<Tokens>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    match tokens.may_read(authorization) {
        Ok(_) => {
            peer.standing.let_in();
            next.run(request).await
        }
        Err(status) => {
            let bearer = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, bearer, format!("{}\n", status.message())).into_response()
        }
    }
}
