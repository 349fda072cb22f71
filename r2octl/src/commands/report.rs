//! `report`: the HTML report of a run, from what lies in its store.

use crate::cli::Report;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn report(_url: &str, _args: Report, _output: &mut Output) -> Result<(), CliError> {
    Err(CliError::failure("pending"))
}
