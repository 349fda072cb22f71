//! `events` and `logs`.

use r2o_proto::v1::{EventsRequest, LogsRequest};
use serde::Serialize;
use tonic::Streaming;

use crate::cli::{Events, Format, Logs};
use crate::client::Coordinator;
use crate::error::CliError;
use crate::output::Output;
use crate::table;
use crate::view::{EventView, LogView};

pub(super) async fn events(url: &str, args: Events, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let answer = coordinator.jobs.events(EventsRequest { name: args.job.clone(), follow: args.follow }).await;
    let about = format!("events of job `{}`", args.job);
    let stream = coordinator.take(answer, &about)?;
    print(stream, &about, &coordinator.url, output, EventView::from, table::event).await
}

pub(super) async fn logs(url: &str, args: Logs, output: &mut Output) -> Result<(), CliError> {
    let mut coordinator = Coordinator::connect(url).await?;
    let request = LogsRequest { name: args.job.clone(), follow: args.follow, tail: args.tail };
    let answer = coordinator.jobs.logs(request).await;
    let about = format!("logs of job `{}`", args.job);
    let stream = coordinator.take(answer, &about)?;
    let wide = output.format() == Format::Wide;
    print(stream, &about, &coordinator.url, output, LogView::from, |l| {
        let target = if wide { format!(" {}:", l.target) } else { String::new() };
        format!("{} {:<5} {}{target} {}", l.time, l.level, l.worker, l.message)
    })
    .await
}

/// Prints a stream as it comes, until it ends.
async fn print<M, V: Serialize>(
    mut stream: Streaming<M>,
    about: &str,
    url: &str,
    output: &mut Output,
    view: impl Fn(M) -> V,
    text: impl Fn(&V) -> String,
) -> Result<(), CliError> {
    while let Some(message) = stream.message().await.map_err(|s| CliError::from_status(s, about, url))? {
        let view = view(message);
        output.item(&view, || text(&view))?;
    }
    Ok(())
}
