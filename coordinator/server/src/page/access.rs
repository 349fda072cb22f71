//! Who looks at the page, and what that one may.
//!
//! With tokens, a browser signs in with one and gets a cookie that holds no token: a number that only this process knows.
//! Programs show their token in `Authorization`. Without tokens, those who reach a loopback address may do everything, as
//! on the gRPC port, and others may look.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Form, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use r2o_transport::Peer;
use serde::Deserialize;
use uuid::Uuid;

use super::layout::{self, Frame};
use super::{Page, Shared};
use crate::tokens::Role;

/// How long a browser stays signed in.
const SESSION: Duration = Duration::from_secs(12 * 3_600);
/// Browsers that are signed in at one time; the one that will end first makes room.
const SESSIONS: usize = 1_024;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visitor {
    /// Shows no token, and none is asked for.
    Anybody {
        /// Whether it may steer jobs.
        steers: bool,
    },
    /// Shows a token with every request.
    Bearer(Role),
    /// A browser that signed in.
    Browser(Role),
    /// Nobody that is known.
    Stranger,
}

impl Visitor {
    pub(super) fn may_look(self) -> bool {
        match self {
            Self::Anybody { .. } => true,
            Self::Bearer(role) | Self::Browser(role) => role.may(Role::Reader),
            Self::Stranger => false,
        }
    }

    pub(super) fn may_steer(self) -> bool {
        match self {
            Self::Anybody { steers } => steers,
            Self::Bearer(role) | Self::Browser(role) => role.may(Role::Submitter),
            Self::Stranger => false,
        }
    }

    pub(super) fn has_session(self) -> bool {
        matches!(self, Self::Browser(_))
    }

    /// What the page calls it.
    pub(super) fn word(self) -> String {
        match self {
            Self::Anybody { steers: true } | Self::Stranger => String::new(),
            Self::Anybody { steers: false } => "read only".to_owned(),
            Self::Bearer(role) | Self::Browser(role) => role.to_string(),
        }
    }
}

/// The browsers that are signed in. Neither a cookie nor a token is kept, only hashes.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<blake3::Hash, Session>>);

#[derive(Debug)]
struct Session {
    token: blake3::Hash,
    until: Instant,
}

impl Sessions {
    /// Begins a session; gives its cookie's value.
    fn begin(&self, token: blake3::Hash) -> String {
        let value = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, session| session.until > now);
        if all.len() >= SESSIONS {
            let oldest = all.iter().min_by_key(|(_, session)| session.until).map(|(value, _)| *value);
            oldest.and_then(|value| all.remove(&value));
        }
        all.insert(blake3::hash(value.as_bytes()), Session { token, until: now + SESSION });
        value
    }

    fn token(&self, value: &str) -> Option<blake3::Hash> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&blake3::hash(value.as_bytes()))?;
        (session.until > Instant::now()).then_some(session.token)
    }

    fn end(&self, value: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&blake3::hash(value.as_bytes()));
    }
}

impl Page {
    fn cookie(&self) -> &'static str {
        // The prefix makes browsers insist on TLS and on this host alone.
        if self.door.tls { "__Host-r2o" } else { "r2o" }
    }

    fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie()).map(|(_, value)| value)
    }

    /// Who sends these headers, as of now: tokens change while pages are open.
    pub(super) fn visitor(&self, headers: &HeaderMap) -> Visitor {
        let tokens = &self.door.tokens;
        if tokens.is_open() {
            return Visitor::Anybody { steers: self.door.loopback };
        }
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let token = shown.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default().trim_ascii();
            return tokens.role(blake3::hash(token)).map_or(Visitor::Stranger, Visitor::Bearer);
        }
        let token = self.session(headers).and_then(|value| self.sessions.token(value));
        token.and_then(|token| tokens.role(token)).map_or(Visitor::Stranger, Visitor::Browser)
    }

    /// Without tokens, a page of another site that has its name lead to this machine must not speak for the person at it.
    fn is_misled(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        self.door.tokens.is_open() && self.door.loopback && !host(uri, headers).is_some_and(is_local)
    }

    /// Whether a request that changes something was made by one of our own pages.
    fn is_own(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match (text("sec-fetch-site"), text("origin")) {
            (Some(site), _) => site == "same-origin",
            (None, Some(origin)) => host(uri, headers) == origin.split_once("://").map(|(_, host)| host),
            (None, None) => false,
        }
    }
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    uri.authority().map(|a| a.as_str()).or_else(|| headers.get(header::HOST).and_then(|value| value.to_str().ok()))
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lets in who may look, and lets change something only who may steer and means to.
pub(super) async fn guard(State(page): State<Shared>, mut request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let visitor = page.visitor(headers);
    if page.is_misled(uri, headers) {
        let what = "This page is served without tokens, so it answers only by the name localhost or a loopback address. \
                    Start the coordinator with --tokens FILE to serve it by other names.";
        return (StatusCode::FORBIDDEN, layout::message(&Visitor::Stranger, "Not by this name", what)).into_response();
    }
    if !visitor.may_look() {
        let wanted = if request.method() == "GET" { uri.path().to_owned() } else { "/".to_owned() };
        return if uri.path().ends_with("/live") || headers.contains_key(header::AUTHORIZATION) {
            (StatusCode::UNAUTHORIZED, "this page asks for a token of role reader, submitter or admin\n")
                .into_response()
        } else {
            (StatusCode::UNAUTHORIZED, form(&wanted, None)).into_response()
        };
    }
    if request.method() != "GET" && request.method() != "HEAD" {
        let refused = if !visitor.may_steer() {
            Some("You may look at jobs. To steer them, sign in with a token of role submitter or admin.")
        } else if !matches!(visitor, Visitor::Bearer(_)) && !page.is_own(uri, headers) {
            Some("This request did not come from the page itself, so it was not carried out.")
        } else {
            None
        };
        if let Some(what) = refused {
            return (StatusCode::FORBIDDEN, layout::message(&visitor, "Not allowed", what)).into_response();
        }
    }
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() {
        peer.standing.let_in();
    }
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

pub(super) async fn sign_in_form(Query(wanted): Query<Wanted>) -> Response {
    form(&wanted.next, None)
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn sign_in(
    State(page): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Form(SignIn { token, next }): Form<SignIn>,
) -> Response {
    if !page.is_own(&uri, &headers) {
        let what = "Sign in by the page's own form.";
        return (StatusCode::FORBIDDEN, layout::message(&Visitor::Stranger, "Not signed in", what)).into_response();
    }
    let token = blake3::hash(token.trim().as_bytes());
    match page.door.tokens.role(token) {
        Some(role) if role.may(Role::Reader) => {
            tracing::info!("a browser signed in as {role}");
            let lasts = SESSION.as_secs();
            let cookie = page.set_cookie(&page.sessions.begin(token), lasts);
            ([(header::SET_COOKIE, cookie)], Redirect::to(local(&next))).into_response()
        }
        Some(role) => {
            let what =
                format!("A token of role {role} does not open this page: use one of role reader, submitter or admin.");
            (StatusCode::FORBIDDEN, form(&next, Some(&what))).into_response()
        }
        None => {
            tracing::warn!("a browser was not let in: its token is not known");
            let what = "The coordinator does not know this token.";
            (StatusCode::UNAUTHORIZED, form(&next, Some(what))).into_response()
        }
    }
}

pub(super) async fn sign_out(State(page): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    if page.is_own(&uri, &headers)
        && let Some(value) = page.session(&headers)
    {
        page.sessions.end(value);
    }
    ([(header::SET_COOKIE, page.set_cookie("", 0))], Redirect::to("/sign-in")).into_response()
}

impl Page {
    fn set_cookie(&self, value: &str, seconds: u64) -> String {
        let secure = if self.door.tls { "; Secure" } else { "" };
        format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", self.cookie())
    }
}

/// A path of this page; anything else leads to the overview.
fn local(next: &str) -> &str {
    let plain = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n']);
    if plain && next.is_ascii() { next } else { "/" }
}

fn form(next: &str, wrong: Option<&str>) -> Response {
    let main = html! {
        div.sign-in {
            h1 { "Sign in" }
            p { "This coordinator asks for a token. A reader sees everything; a submitter or an administrator may also steer jobs." }
            @if let Some(wrong) = wrong { p.wrong #wrong role="alert" { (wrong) } }
            form method="post" action="/sign-in" {
                label for="token" { "Token" }
                input #token type="password" name="token" required autocomplete="current-password" spellcheck="false"
                    aria-describedby=[wrong.map(|_| "wrong")];
                input type="hidden" name="next" value=(local(next));
                button.primary type="submit" { "Sign in" }
            }
        }
    };
    layout::answer(layout::page(&Visitor::Stranger, &Frame { title: "Sign in", live: None, charts: false, main }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in ["localhost", "localhost:80", "127.0.0.1:7071", "127.9.9.9", "[::1]:7071", "[::1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:7071", "10.0.0.1", "", "[::2]:1"] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_sign_in_leads_nowhere_else() {
        assert_eq!(
            ["/jobs/a", "//evil.example", "https://evil.example", "/\\evil", ""].map(local),
            ["/jobs/a", "/", "/", "/", "/"]
        );
    }
}
