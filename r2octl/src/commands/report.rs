//! `report`: the HTML report of a run, and the figure of its masks, from what lies in its store.

use r2o_report::{CollectError, FigureOptions, collect, figure_png, render};
use serde::Serialize;

use crate::cli::Report;
use crate::error::{CliError, Exit, exit_of_storage};
use crate::format::{bytes, count};
use crate::output::Output;
use crate::target::{resolve, write};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    report: String,
    figure: Option<String>,
    steps: usize,
    bytes: usize,
}

pub(super) async fn report(url: &str, args: Report, output: &mut Output) -> Result<(), CliError> {
    let store = resolve(&args.run, url).await?;
    let input = collect(&store).await.map_err(refused)?;
    let page =
        render(&input).map_err(|e| CliError::refused(format!("cannot draw the report of {}: {e}", store.url())))?;
    let figure = match args.figure {
        None => None,
        Some(file) => {
            let options = FigureOptions { images: args.figure_images, ..FigureOptions::default() };
            let drawn = figure_png(&input.pages, &options)
                .map_err(|e| CliError::refused(format!("cannot draw the figure of {}: {e}", store.url())))?;
            let png = drawn.ok_or_else(|| {
                CliError::new(Exit::NotFound, format!("{} has no pictures of masks yet", store.url()))
                    .advice("the first ones are written at the end of the first epoch")
            })?;
            Some(write(&file.display().to_string(), png).await?)
        }
    };
    if args.out == "-" {
        return output.text(&page);
    }
    let size = page.len();
    let report = write(&args.out, page.into_bytes()).await?;
    let written = Written { report, figure, steps: input.records.len(), bytes: size };
    output.result(&written, |_| {
        let figure =
            written.figure.as_ref().map(|f| format!("\nwrote the figure of its masks to {f}")).unwrap_or_default();
        format!(
            "wrote the report of {} ({}) to {}{figure}",
            count(written.steps, "step"),
            bytes(size as u64),
            written.report
        )
    })
}

fn refused(e: CollectError) -> CliError {
    let exit = match &e {
        CollectError::NoRun { .. } => Exit::NotFound,
        CollectError::Storage(e) => exit_of_storage(e),
        _ => Exit::Refused,
    };
    CliError::new(exit, e.to_string())
}
