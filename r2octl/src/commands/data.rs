//! `data pack` and `data inspect`.

use crate::cli::Data;
use crate::error::CliError;
use crate::output::Output;

pub(super) async fn run(_command: Data, _output: &mut Output) -> Result<(), CliError> {
    Err(CliError::failure("pending"))
}
