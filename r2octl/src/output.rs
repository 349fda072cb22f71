//! Printing results in the asked format.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::cli::Format;
use crate::error::CliError;

/// Where and how a command prints.
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    out: Box<dyn Write + Send>,
}

impl Output {
    pub(crate) fn stdout(format: Format) -> Self {
        let stdout = std::io::stdout();
        Self { format, terminal: stdout.is_terminal(), out: Box::new(stdout) }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn is_for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints one result: `value` for programs, `text` for people.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(bool) -> String,
    ) -> Result<(), CliError> {
        let printed = match self.format {
            Format::Json => json(value, true)?,
            Format::Yaml => yaml(value)?,
            Format::Table => text(false),
            Format::Wide => text(true),
        };
        self.text(&printed)
    }

    /// Prints one of a stream of results: a JSON line, a YAML document or a line of text.
    pub(crate) fn item<T: Serialize>(&mut self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        let printed = match self.format {
            Format::Json => json(value, false)?,
            Format::Yaml => format!("---\n{}", yaml(value)?),
            _ => text(),
        };
        self.text(&printed)
    }

    /// Prints text and ends the line.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(end.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Says something to people only, beside the result: programs read the standard output.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_for_programs() {
            eprintln!("{text}");
        }
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> Result<String, CliError> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|e| CliError::failure("cannot print the result as JSON").because(e))
}

pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|e| CliError::failure("cannot print the result as YAML").because(e))
}
