//! The frame of every page.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::access::Visitor;
use super::assets;

/// How often a page without scripts loads itself again, in seconds.
const RELOAD: u32 = 15;

/// What a page is made of.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    /// Where the newer parts of the page come from; none: it does not change.
    pub(super) live: Option<String>,
    pub(super) charts: bool,
    pub(super) main: Markup,
}

/// A whole page.
pub(super) fn page(visitor: &Visitor, frame: &Frame<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (frame.title) " · R2O" }
                link rel="icon" href=(assets::ICON.url());
                @if frame.charts { link rel="stylesheet" href=(assets::UPLOT_STYLE.url()); }
                link rel="stylesheet" href=(assets::STYLE.url());
                script src=(assets::THEME.url()) {}
                @if frame.charts {
                    script src=(assets::UPLOT.url()) defer {}
                    script src=(assets::CHARTS.url()) defer {}
                }
                script src=(assets::SCRIPT.url()) defer {}
                @if frame.live.is_some() { noscript { meta http-equiv="refresh" content=(RELOAD); } }
            }
            body data-live=[frame.live.as_deref()] {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    nav aria-label="Pages" { a.brand href="/" { span.mark aria-hidden="true" {} "R2O" } a href="/" { "Overview" } }
                    div.tools {
                        span #pulse.pulse role="status" hidden {}
                        (person(visitor))
                        button #theme type="button" hidden { "Theme: auto" }
                    }
                }
                main #main tabindex="-1" { (frame.main) }
                footer { "R2O " (env!("CARGO_PKG_VERSION")) " · times in UTC · the same in a terminal: " code { "r2octl top" } }
            }
        }
    }
}

fn person(visitor: &Visitor) -> Markup {
    html! {
        span.role { (visitor.word()) }
        @if visitor.has_session() {
            form method="post" action="/sign-out" { button type="submit" { "Sign out" } }
        }
    }
}

/// A page that says one thing.
pub(super) fn message(visitor: &Visitor, title: &str, what: &str) -> Response {
    let main = html! { h1 { (title) } p { (what) } p { a href="/" { "To the overview" } } };
    answer(page(visitor, &Frame { title, live: None, charts: false, main }))
}

/// The page as an answer.
pub(super) fn answer(page: Markup) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}
