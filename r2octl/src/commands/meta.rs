//! Commands about the program itself.

use std::collections::BTreeMap;

use clap::CommandFactory;
use clap_complete::Shell;
use r2o_storage::checkpoint::Manifest;
use r2o_types::TrainJob;

use crate::cli::{Cli, Format};
use crate::error::CliError;
use crate::output::Output;
use crate::table;

/// The schema is JSON unless YAML is asked for: a table of it would help nobody.
pub(super) fn schema(output: &mut Output) -> Result<(), CliError> {
    let schema = TrainJob::schema();
    if output.format() == Format::Yaml {
        return output.result(&schema, |_| String::new());
    }
    output.text(&format!("{schema:#}"))
}

pub(super) fn completion(shell: Shell, output: &mut Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "r2octl", &mut script);
    output.text(&String::from_utf8_lossy(&script))
}

pub(super) fn version(output: &mut Output) -> Result<(), CliError> {
    let facts = BTreeMap::from([
        ("r2octl", env!("CARGO_PKG_VERSION").to_owned()),
        ("jobApi", "r2o.dev/v1".to_owned()),
        ("protocol", "r2o.v1".to_owned()),
        ("checkpointFormat", Manifest::FORMAT.to_string()),
    ]);
    output.result(&facts, |_| {
        table::facts(&[
            ("r2octl", facts["r2octl"].clone()),
            ("job API", facts["jobApi"].clone()),
            ("protocol", facts["protocol"].clone()),
            ("checkpoint format", facts["checkpointFormat"].clone()),
        ])
    })
}
