//! Rows of parquet files as images of a source.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::errors::ParquetError;
use tokio::runtime::Handle;

use super::PackError;
use super::place::{Found, apart};
use super::source::{Item, Listed, Origin};
use super::table::{Images, Label, Table};

/// Files that are looked at at a time.
const FILES: usize = 16;

/// A row of a parquet file.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) table: Arc<Table>,
    pub(super) group: usize,
    pub(super) row: usize,
    /// What a row of its group takes on the mean: nobody knows more before it is read.
    pub(super) bytes: u64,
}

fn failed(name: &str, source: ParquetError) -> PackError {
    PackError::Source { path: name.to_owned(), source: std::io::Error::other(source) }
}

/// The rows of all files, one file after the other, and the names of their classes in the order of the labels.
pub(super) async fn list(files: Vec<Found>, runtime: &Handle) -> Result<Listed, PackError> {
    let open = async |file: Found| {
        let (name, of, handle) = (file.name.clone(), file.name, runtime.clone());
        let read = apart(move || rows(Arc::new(Table::open(file.whole, handle)?))).await;
        let read = read.unwrap_or_else(|e| Err(ParquetError::External(Box::new(e))));
        read.map(|(names, rows)| (name, names, rows)).map_err(|e| failed(&of, e))
    };
    let opened: Vec<_> = stream::iter(files).map(open).buffered(FILES).try_collect().await?;
    let mut names: Option<Vec<String>> = None;
    for (name, found, _) in &opened {
        match (&names, found) {
            (Some(first), Some(found)) if first != found => {
                return Err(failed(
                    name,
                    ParquetError::General("its labels have other names than those before".into()),
                ));
            }
            (None, Some(found)) => names = Some(found.clone()),
            _ => {}
        }
    }
    let all: BTreeSet<&Label> =
        opened.iter().flat_map(|(.., rows)| rows).filter_map(|(_, label)| label.as_ref()).collect();
    let shown = |label: &Label| match (label, &names) {
        (Label::Text(text), _) => Some(text.clone()),
        (Label::Number(number), None) => Some(number.to_string()),
        // Hugging Face has -1 where a label is not told.
        (Label::Number(number), Some(names)) => usize::try_from(*number).ok().and_then(|at| names.get(at).cloned()),
    };
    let classes = names.clone().unwrap_or_else(|| all.into_iter().filter_map(shown).collect());
    let items = opened.iter().flat_map(|(name, _, rows)| {
        rows.iter().enumerate().map(move |(number, (row, label))| Item {
            name: format!("{name}:{number}"),
            image: Origin::Row(row.clone()),
            class: label.as_ref().and_then(shown),
            mask: None,
        })
    });
    Ok(Listed { items: items.collect(), classes, ..Listed::default() })
}

type Rows = (Option<Vec<String>>, Vec<(Row, Option<Label>)>);

fn rows(table: Arc<Table>) -> Result<Rows, ParquetError> {
    let mut all = Vec::new();
    for (group, (rows, bytes)) in table.groups().enumerate() {
        let labels = table.labels(group)?;
        let row = |row| Row { table: Arc::clone(&table), group, row, bytes };
        all.extend((0..rows).map(row).zip(labels));
    }
    Ok((table.names(), all))
}

/// Reads rows, quickly those that follow one another.
#[derive(Default)]
pub(super) struct Cursor(Option<(Row, Images)>);

impl Cursor {
    /// The image of a row; `None`: it has none. Blocks its thread, which must not be one of the runtime.
    pub(super) fn read(&mut self, row: &Row) -> Result<Option<Bytes>, PackError> {
        let follows = |at: &Row| Arc::ptr_eq(&at.table, &row.table) && at.group == row.group && at.row + 1 == row.row;
        let failed = |e| failed(&row.table.file_name(), e);
        let mut images = match self.0.take() {
            Some((at, images)) if follows(&at) => images,
            _ => row.table.images(row.group, row.row).map_err(failed)?,
        };
        let image = images.next().map_err(failed)?;
        self.0 = Some((row.clone(), images));
        Ok(image)
    }
}
