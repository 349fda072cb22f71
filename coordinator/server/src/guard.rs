//! Stands before a service and lets only those requests in whose token allows them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use r2o_transport::Peer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::tokens::Tokens;

/// A service behind its guard.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<S> {
    service: S,
    tokens: Tokens,
}

impl<S> Guarded<S> {
    pub(crate) fn new(service: S, tokens: &Tokens) -> Self {
        Self { service, tokens: tokens.clone() }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        if peer.as_ref().is_some_and(|peer| !peer.standing.may_ask()) {
            let status =
                Status::resource_exhausted("too many requests on one connection: ask at most 2,000 times a second");
            return Either::Right(ready(Ok(status.into_http())));
        }
        let authorization = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        match self.tokens.check(request.uri().path(), authorization) {
            Ok(shown) => {
                request.extensions_mut().insert(shown);
                if let Some(peer) = peer {
                    peer.standing.let_in();
                }
                Either::Left(self.service.call(request))
            }
            Err(status) => {
                tracing::warn!(path = request.uri().path(), "refused: {}", status.message());
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}
