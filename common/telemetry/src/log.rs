//! The process's tracing subscriber.

use std::{env, error::Error, fmt, str::FromStr};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::json::JsonLines;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event, for people.
    #[default]
    Text,
    /// One JSON object per event, for collectors.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format `{other}`: text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// What to log and how. Lines go to standard error, so that standard output stays a program's answer.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Look of a line.
    pub format: LogFormat,
    /// Filter directives, `info,r2o_data=debug`. `None`: `R2O_LOG`, then `RUST_LOG`, then `info`.
    pub filter: Option<String>,
    /// Names and values that every JSON line has, such as the worker's.
    pub fields: Vec<(&'static str, String)>,
}

impl LogOptions {
    /// The directives in force, by precedence: the option, `R2O_LOG`, `RUST_LOG`, `info`.
    fn directives(&self) -> String {
        let given = |text: String| (!text.trim().is_empty()).then_some(text);
        self.filter
            .clone()
            .and_then(given)
            .or_else(|| env::var("R2O_LOG").ok().and_then(given))
            .or_else(|| env::var("RUST_LOG").ok().and_then(given))
            .unwrap_or_else(|| "info".to_owned())
    }
}

/// Why logging could not be set up.
#[derive(Debug)]
pub enum InitError {
    /// The filter directives cannot be read.
    Filter {
        /// The directives as given.
        directives: String,
        /// What is wrong with them.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    AlreadySet,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { directives, .. } => {
                write!(f, "cannot read the log filter `{directives}` (like `info,r2o_data=debug`)")
            }
            Self::AlreadySet => f.write_str("logging is set up already"),
        }
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Filter { source, .. } => Some(source),
            Self::AlreadySet => None,
        }
    }
}

/// Installs the process's subscriber. Fails on an unreadable filter, and when called twice.
pub fn init(options: &LogOptions) -> Result<(), InitError> {
    init_with(options, None::<tracing_subscriber::layer::Identity>)
}

/// Like [`init`], with one more layer (such as a [`crate::Tap`]) that sees what the filter lets through.
pub fn init_with<L>(options: &LogOptions, extra: Option<L>) -> Result<(), InitError>
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    let directives = options.directives();
    let filter = EnvFilter::try_new(&directives).map_err(|source| InitError::Filter { directives, source })?;
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        extra.into_iter().map(|layer| layer.boxed()).chain([line_layer(options)]).collect();
    tracing_subscriber::registry().with(layers.with_filter(filter)).try_init().map_err(|_| InitError::AlreadySet)
}

fn line_layer<S>(options: &LogOptions) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match options.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().event_format(JsonLines::new(&options.fields)).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_parse_and_print_alike() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("xml"));
    }

    #[test]
    fn a_bad_filter_is_named() {
        let options = LogOptions { filter: Some("r2o_data=loudly=now".to_owned()), ..LogOptions::default() };
        let error = init(&options).unwrap_err();
        assert!(error.to_string().contains("r2o_data=loudly=now"), "{error}");
        assert!(error.source().is_some());
    }

    #[test]
    fn an_option_wins_over_the_environment_and_blank_counts_as_unset() {
        let given = LogOptions { filter: Some("debug".to_owned()), ..LogOptions::default() };
        assert_eq!(given.directives(), "debug");
        let blank = LogOptions { filter: Some("  ".to_owned()), ..LogOptions::default() };
        assert_ne!(blank.directives(), "  ");
    }
}
