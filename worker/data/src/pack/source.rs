//! What there is to pack: files of a folder tree or a list, or members of WebDataset tars, in one fixed order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{PackError, PackOptions};
use crate::decode::FILE_MAX;
use crate::error::DecodeError;

const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Bytes of a class's name that are read.
const CLASS_MAX: u64 = 4096;
const LISTS: [&str; 3] = ["txt", "lst", "tsv"];

/// Where an image's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file.
    File(PathBuf),
    /// A stretch of a tar.
    Tar(PathBuf, u64, u64),
}

impl Origin {
    /// Its bytes. A file that is longer than any image is refused before it is read, and so is what a tar's header says of
    /// itself.
    pub(super) fn read(&self) -> std::io::Result<Vec<u8>> {
        let (path, offset, bytes) = match self {
            Self::File(path) => (path, 0, fs::metadata(path)?.len()),
            Self::Tar(path, offset, bytes) => (path, *offset, *bytes),
        };
        if bytes > FILE_MAX {
            let text = DecodeError::TooLong { bytes, max: FILE_MAX }.to_string();
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, text));
        }
        use std::os::unix::fs::FileExt;
        let mut out = vec![0; bytes as usize];
        File::open(path)?.read_exact_at(&mut out, offset)?;
        Ok(out)
    }
}

/// One image of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Name for people: a path, or tar and member.
    pub(super) name: String,
    pub(super) image: Origin,
    pub(super) class: Option<String>,
    pub(super) mask: Option<Origin>,
}

/// The whole source.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) items: Vec<Item>,
    /// Names of classes, sorted.
    pub(super) classes: Vec<String>,
}

pub(super) fn list(options: &PackOptions) -> Result<Listed, PackError> {
    let path = Path::new(&options.source);
    let meta = fs::metadata(path).map_err(|e| unreadable(path, e))?;
    let mut items = if meta.is_dir() {
        let tars = tars_of(path)?;
        if tars.is_empty() {
            tree(path)?
        } else {
            tars.iter().map(|t| tar_items(t)).collect::<Result<Vec<_>, _>>()?.concat()
        }
    } else if has_extension(path, &["tar"]) {
        tar_items(path)?
    } else if has_extension(path, &LISTS) {
        list_file(path)?
    } else {
        return Err(PackError::List {
            path: options.source.clone(),
            line: 0,
            reason: "not a folder, a .tar, or a list (.txt, .lst, .tsv)".to_owned(),
        });
    };
    if let Some(masks) = &options.masks {
        attach_masks(&mut items, masks)?;
    }
    let mut classes: Vec<String> = items.iter().filter_map(|item| item.class.clone()).collect();
    classes.sort();
    classes.dedup();
    Ok(Listed { items, classes })
}

fn unreadable(path: &Path, source: std::io::Error) -> PackError {
    PackError::Source { path: path.display().to_string(), source }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// Files of a folder tree in the order of their paths; the first folder below the root is the class.
fn tree(root: &Path) -> Result<Vec<Item>, PackError> {
    let mut items = Vec::new();
    for entry in walkdir::WalkDir::new(root).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root).to_owned();
            unreadable(&path, e.into())
        })?;
        let path = entry.path();
        if !entry.file_type().is_file() || !has_extension(path, &IMAGES) {
            continue;
        }
        let inside = path.strip_prefix(root).unwrap_or(path);
        let mut parts = inside.components();
        let first = parts.next().map(|p| p.as_os_str().to_string_lossy().into_owned());
        items.push(Item {
            name: inside.display().to_string(),
            image: Origin::File(path.to_owned()),
            class: first.filter(|_| parts.next().is_some()),
            mask: None,
        });
    }
    Ok(items)
}

/// Lines of `PATH [TAB LABEL [TAB MASK]]`; paths are relative to the list. Blank lines and those that start with # are not
/// read.
fn list_file(list: &Path) -> Result<Vec<Item>, PackError> {
    let text = fs::read_to_string(list).map_err(|e| unreadable(list, e))?;
    let base = list.parent().unwrap_or(Path::new("."));
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split('\t');
        let path = fields.next().unwrap_or_default();
        let image = base.join(path);
        if !image.is_file() {
            return Err(PackError::List {
                path: list.display().to_string(),
                line: number + 1,
                reason: format!("no such file: {}", image.display()),
            });
        }
        let filled = |field: Option<&str>| field.filter(|f| !f.is_empty()).map(str::to_owned);
        let class = filled(fields.next());
        let mask = filled(fields.next()).map(|mask| Origin::File(base.join(mask)));
        items.push(Item { name: path.to_owned(), image: Origin::File(image), class, mask });
    }
    Ok(items)
}

fn tars_of(folder: &Path) -> Result<Vec<PathBuf>, PackError> {
    let mut tars = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let path = entry.map_err(|e| unreadable(folder, e))?.path();
        if has_extension(&path, &["tar"]) {
            tars.push(path);
        }
    }
    tars.sort();
    Ok(tars)
}

/// Samples of a WebDataset tar: members that share a name up to the first dot belong together. `cls` is the class, `mask.png`
/// the mask.
fn tar_items(path: &Path) -> Result<Vec<Item>, PackError> {
    let failed = |e| unreadable(path, e);
    let mut archive = tar::Archive::new(File::open(path).map_err(failed)?);
    let mut samples: BTreeMap<(u64, String), Item> = BTreeMap::new();
    let mut order: BTreeMap<String, u64> = BTreeMap::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path().map_err(failed)?.display().to_string();
        let (folder, file) = member.rsplit_once('/').map_or(("", member.as_str()), |(folder, file)| (folder, file));
        let Some((stem, extension)) = file.split_once('.') else { continue };
        let key = format!("{folder}/{stem}");
        let next = order.len() as u64;
        let number = *order.entry(key.clone()).or_insert(next);
        let origin = Origin::Tar(path.to_owned(), entry.raw_file_position(), entry.size());
        let sample = samples.entry((number, key)).or_insert_with(|| Item {
            name: String::new(),
            image: Origin::Tar(path.to_owned(), 0, 0),
            class: None,
            mask: None,
        });
        match extension.to_ascii_lowercase().as_str() {
            "cls" | "cls.txt" => {
                let mut text = String::new();
                (&mut entry).take(CLASS_MAX).read_to_string(&mut text).map_err(failed)?;
                sample.class = Some(text.trim().to_owned()).filter(|t| !t.is_empty());
            }
            "mask.png" => sample.mask = Some(origin),
            extension if IMAGES.contains(&extension) => {
                sample.image = origin;
                sample.name = format!("{}:{member}", path.display());
            }
            _ => {}
        }
    }
    Ok(samples.into_values().filter(|sample| !sample.name.is_empty()).collect())
}

/// Finds `MASKS/STEM.png`, or the image's own path below MASKS, for each image.
fn attach_masks(items: &mut [Item], masks: &Path) -> Result<(), PackError> {
    if !masks.is_dir() {
        return Err(unreadable(masks, std::io::Error::new(std::io::ErrorKind::NotFound, "not a folder")));
    }
    for item in items {
        let inside = Path::new(&item.name).with_extension("png");
        let flat = masks.join(inside.file_name().unwrap_or_default());
        item.mask = [masks.join(&inside), flat].into_iter().find(|p| p.is_file()).map(Origin::File);
    }
    Ok(())
}
