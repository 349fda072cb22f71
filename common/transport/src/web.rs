//! HTTP for people and for monitoring: probes at all times, and pages once there is something to show.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::connect_info::Connected;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Router, http::StatusCode};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::connection::Peer;
use crate::incoming::Incoming;

/// Bytes of a request's body.
const BODY_BYTES: usize = 64 << 10;

/// What a web server shows, besides `/livez` (the process lives) and `/readyz` (it does its work). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pages(Arc<OnceLock<Router>>);

impl Pages {
    /// The process does its work from now on, and these are its pages. A handler says with [`crate::Standing::let_in`] that a
    /// peer may keep its connection.
    pub fn open(&self, router: Router) {
        let _were_open_already = self.0.set(router);
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(incoming: Incoming, pages: Pages, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(page)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(pages);
    axum::serve(incoming, router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn ready(State(pages): State<Pages>) -> Response {
    if pages.0.get().is_some() { "ok\n".into_response() } else { not_yet() }
}

async fn page(State(pages): State<Pages>, request: Request) -> Response {
    match pages.0.get() {
        Some(router) => match router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => not_yet(),
    }
}

fn not_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "not ready: it starts, or another process leads\n").into_response()
}

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        stream.io().peer().clone()
    }
}

/// The web server's address when only that of gRPC is given: the next port, or a free one beside a free one.
#[must_use]
pub fn beside(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().checked_add(1).unwrap_or(0) };
    SocketAddr::new(listen.ip(), port)
}
