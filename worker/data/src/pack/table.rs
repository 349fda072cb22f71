//! Parquet files with images in them, as Hugging Face writes them: a column of bytes, or of `{bytes, path}`, and labels.
//!
//! A file is read page by page, so that memory does not grow with its row groups (see `pages`). What a file says of itself is not trusted: the reader panics on some kinds of damage, which is caught
//! here and becomes an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use tokio::runtime::Handle;

use super::pages::{Blocks, Pages};
use super::place::Stretch;

/// Bytes that a row takes at least on the mean; more rows than that are a lie, or no images.
const ROW_LEAST: u64 = 32;
/// Names of a column of labels, the first that is there.
const LABELS: [&str; 3] = ["label", "class", "cls"];

/// A parquet file whose columns are known.
#[derive(Debug)]
pub(super) struct Table {
    file: Stretch,
    metadata: ParquetMetaData,
    image: usize,
    label: Option<usize>,
    runtime: Handle,
}

/// A row's label, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    Number(i64),
    Text(String),
}

impl Table {
    pub(super) fn open(file: Stretch, runtime: Handle) -> Result<Self, ParquetError> {
        caught(|| {
            let blocks = Blocks::new(file.clone(), &runtime);
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&blocks)?;
            let (image, label) = columns(&metadata)?;
            let rows = metadata.row_groups().iter().try_fold(0_u64, |all, group| {
                u64::try_from(group.num_rows()).ok().and_then(|rows| all.checked_add(rows))
            });
            match rows {
                Some(rows) if rows <= file.bytes() / ROW_LEAST => Ok(Self { file, metadata, image, label, runtime }),
                _ => Err(general(format!("it says that it has more rows than {} bytes can hold", file.bytes()))),
            }
        })
    }

    pub(super) fn file_name(&self) -> String {
        self.file.place.file_name()
    }

    /// Rows of each group, and what one takes on the mean.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, u64)> {
        self.metadata.row_groups().iter().map(|group| {
            let rows = group.num_rows() as u64;
            let bytes = u64::try_from(group.column(self.image).compressed_size()).unwrap_or(0);
            (rows as usize, bytes.checked_div(rows).unwrap_or(0).max(1))
        })
    }

    /// Names of labels, as Hugging Face keeps them beside the schema.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        let label = self.metadata.file_metadata().schema_descr().column(self.label?).name().to_owned();
        let all = self.metadata.file_metadata().key_value_metadata()?;
        let text = all.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        serde_json::from_value(json.get("info")?.get("features")?.get(label)?.get("names")?.clone()).ok()
    }

    /// The label of each row of a group; `None` where there is none.
    pub(super) fn labels(&self, group: usize) -> Result<Vec<Option<Label>>, ParquetError> {
        let Some(column) = self.label else {
            return Ok(vec![None; self.metadata.row_group(group).num_rows() as usize]);
        };
        caught(|| match self.column(group, column)? {
            ColumnReader::Int32ColumnReader(reader) => {
                self.all::<Int32Type>(group, reader, |n| Ok(Label::Number((*n).into())))
            }
            ColumnReader::Int64ColumnReader(reader) => self.all::<Int64Type>(group, reader, |n| Ok(Label::Number(*n))),
            ColumnReader::ByteArrayColumnReader(reader) => {
                self.all::<ByteArrayType>(group, reader, |text| Ok(Label::Text(text.as_utf8()?.to_owned())))
            }
            _ => Err(general("its labels are neither integers nor strings".to_owned())),
        })
    }

    fn all<T: DataType>(
        &self,
        group: usize,
        mut reader: ColumnReaderImpl<T>,
        label: impl Fn(&T::T) -> Result<Label, ParquetError>,
    ) -> Result<Vec<Option<Label>>, ParquetError> {
        let rows = self.metadata.row_group(group).num_rows() as usize;
        let mut labels = Vec::new();
        while labels.len() < rows {
            let value = next(&mut reader)?.ok_or_else(|| general(format!("row group {group} ends too early")))?;
            labels.push(value.as_ref().map(&label).transpose()?);
        }
        Ok(labels)
    }

    fn column(&self, group: usize, column: usize) -> Result<ColumnReader, ParquetError> {
        let group = self.metadata.row_group(group);
        let pages = Arc::new(Pages(Blocks::new(self.file.clone(), &self.runtime)));
        let pages = SerializedPageReader::new(pages, group.column(column), group.num_rows() as usize, None)?;
        Ok(get_column_reader(group.column(column).column_descr_ptr(), Box::new(pages)))
    }

    /// The images of a group from a row on.
    pub(super) fn images(&self, group: usize, row: usize) -> Result<Images, ParquetError> {
        caught(|| match self.column(group, self.image)? {
            ColumnReader::ByteArrayColumnReader(mut reader) => {
                if reader.skip_records(row)? < row {
                    return Err(general(format!("row group {group} has no row {row}")));
                }
                Ok(Images(reader))
            }
            _ => Err(general("its images are not in a column of bytes".to_owned())),
        })
    }
}

/// Images of consecutive rows.
pub(super) struct Images(ColumnReaderImpl<ByteArrayType>);

impl Images {
    /// The next row's image; `None`: the row has none.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, ParquetError> {
        caught(|| match next(&mut self.0)? {
            Some(image) => Ok(image.map(|image| Bytes::copy_from_slice(image.data()))),
            None => Err(general("the row group ends too early".to_owned())),
        })
    }
}

/// The next row's value, `Some(None)` if it has none; `None` behind the last row.
fn next<T: DataType>(reader: &mut ColumnReaderImpl<T>) -> Result<Option<Option<T::T>>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::with_capacity(1));
    let (rows, ..) = reader.read_records(1, Some(&mut levels), None, &mut values)?;
    Ok((rows == 1).then(|| values.pop()))
}

/// Leaves with the images and the labels.
fn columns(metadata: &ParquetMetaData) -> Result<(usize, Option<usize>), ParquetError> {
    let leaves = metadata.file_metadata().schema_descr().columns();
    let plain = leaves.iter().enumerate().filter(|(_, leaf)| leaf.max_rep_level() == 0);
    let mut images = Vec::new();
    for (number, leaf) in plain.clone().filter(|(_, leaf)| leaf.physical_type() == Type::BYTE_ARRAY) {
        let binary = leaf.logical_type_ref().is_none() && leaf.converted_type() == parquet::basic::ConvertedType::NONE;
        match leaf.path().parts() {
            [name] if binary => images.push((number, name)),
            [name, inside] if binary && inside == "bytes" => images.push((number, name)),
            _ => {}
        }
    }
    let image = match images.as_slice() {
        [(only, _)] => *only,
        [] => return Err(general("it has no column of bytes, as images are kept in".to_owned())),
        several => several.iter().find(|(_, name)| *name == "image").map(|(number, _)| *number).ok_or_else(|| {
            let names: Vec<_> = several.iter().map(|(_, name)| name.as_str()).collect();
            general(format!("its columns {} hold bytes, and none of them is called `image`", names.join(", ")))
        })?,
    };
    let called =
        |wanted: &str| plain.clone().find(|(_, leaf)| leaf.path().parts() == [wanted]).map(|(number, _)| number);
    Ok((image, LABELS.into_iter().find_map(called)))
}

fn general(text: String) -> ParquetError {
    ParquetError::General(text)
}

/// What a reader does with a damaged file, as an error.
fn caught<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(general(format!("it is damaged: {}", said.unwrap_or("its reader gave up"))))
    })
}
