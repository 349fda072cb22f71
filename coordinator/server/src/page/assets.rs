//! Styles and scripts, in the program. Their address holds a hash of what they are, so that browsers may keep them.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    version: LazyLock<String>,
}

macro_rules! asset {
    ($name:literal, $kind:literal, $path:literal) => {{
        const TEXT: &str = include_str!($path);
        let version = || blake3::hash(TEXT.as_bytes()).to_hex()[..16].to_owned();
        Asset { name: $name, kind: $kind, text: TEXT, version: LazyLock::new(version) }
    }};
}

pub(super) static STYLE: Asset = asset!("page.css", "text/css; charset=utf-8", "assets/page.css");
pub(super) static THEME: Asset = asset!("theme.js", "text/javascript; charset=utf-8", "assets/theme.js");
pub(super) static SCRIPT: Asset = asset!("page.js", "text/javascript; charset=utf-8", "assets/page.js");
pub(super) static CHARTS: Asset = asset!("charts.js", "text/javascript; charset=utf-8", "assets/charts.js");
pub(super) static UPLOT: Asset =
    asset!("uPlot.iife.min.js", "text/javascript; charset=utf-8", "../../vendor/uplot/uPlot.iife.min.js");
pub(super) static UPLOT_STYLE: Asset =
    asset!("uPlot.min.css", "text/css; charset=utf-8", "../../vendor/uplot/uPlot.min.css");
pub(super) static ICON: Asset = asset!("icon.svg", "image/svg+xml", "assets/icon.svg");

static ALL: [&Asset; 7] = [&STYLE, &THEME, &SCRIPT, &CHARTS, &UPLOT, &UPLOT_STYLE, &ICON];

impl Asset {
    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("/assets/{}/{}", *self.version, self.name)
    }
}

pub(super) async fn get(Path((version, name)): Path<(String, String)>) -> Response {
    match ALL.iter().find(|asset| asset.name == name && *asset.version == version) {
        Some(asset) => {
            let said =
                [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (said, asset.text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
