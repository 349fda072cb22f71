//! Where a source's bytes are: files of this machine, or objects of a store.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use r2o_storage::{ReadCounts, ReadOptions, Reader, StorageError, Store};
use tokio::runtime::Handle;

use super::PackError;

/// Endings of files that are a source: of a store, anything else is a folder.
const FILES: [&str; 6] = ["tar", "parquet", "json", "txt", "lst", "tsv"];
/// Reads of a store at a time: enough that one of 50 ms latency gives two thousand images a second.
pub(super) const READS: usize = 128;
/// First bytes of a scan, and of one that went on elsewhere: a tar's header and the small members behind it.
const SCAN_LEAST: u64 = 8 << 10;
/// A scan that goes straight on reads up to so much at a time.
const SCAN_MOST: u64 = 8 << 20;
/// A gap that is no longer is read with what is around it: small images are quicker read than skipped.
const NEAR: u64 = 32 << 10;
/// The same in a store, where a request takes as long as some MiB: usual images are read through.
const NEAR_REMOTE: u64 = 1 << 20;

/// A store that is read from.
#[derive(Debug)]
pub(super) struct Remote {
    store: Store,
    reader: Reader,
    counts: ReadCounts,
}

impl Remote {
    fn open(url: &str) -> Result<Arc<Self>, StorageError> {
        let options = ReadOptions { concurrent: READS, ..ReadOptions::default() };
        let reader = Reader::new(r2o_storage::open_once(url)?, options);
        Ok(Arc::new(Self { store: r2o_storage::open(url)?, reader, counts: ReadCounts::default() }))
    }
}

/// Stores that are open, by the beginning of their URLs.
pub(super) type Stores = HashMap<String, Arc<Remote>>;

/// A file or a folder.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Of this machine.
    Local(PathBuf),
    /// An object, or all objects below a key.
    Remote(Arc<Remote>, String),
}

/// Some bytes at a place.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) place: Place,
    pub(super) range: Range<u64>,
}

/// A file of a folder.
pub(super) struct Found {
    /// Path below the folder, with `/` between its parts.
    pub(super) name: String,
    pub(super) whole: Stretch,
}

impl Place {
    /// What a URL or a path names. Nothing is contacted.
    pub(super) fn of(named: &str) -> Result<Self, PackError> {
        if let Some(path) = named.strip_prefix("file://") {
            // What the store makes of it, percent signs and all.
            let folder = r2o_storage::open(named)?.folder().map(Path::to_owned);
            return Ok(Self::Local(folder.unwrap_or_else(|| path.into())));
        }
        if !named.contains("://") {
            return Ok(Self::Local(named.into()));
        }
        let named = named.trim_end_matches('/');
        let object = named.rsplit_once('/').filter(|(_, file)| has_extension(file, &FILES));
        let (root, key) = object.unwrap_or((named, ""));
        Ok(Self::Remote(Remote::open(root)?, key.to_owned()))
    }

    /// What `name` names that stands in a file at this place: a URL, or a path relative to the file's folder. `opened` keeps
    /// the stores of such URLs.
    pub(super) fn beside(&self, name: &str, opened: &mut Stores) -> Result<Self, PackError> {
        if let Some((scheme, rest)) = name.split_once("://").filter(|(scheme, _)| *scheme != "file") {
            let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
            let root = format!("{scheme}://{host}");
            let remote = match opened.get(&root) {
                Some(remote) => Arc::clone(remote),
                None => Arc::clone(opened.entry(root.clone()).insert_entry(Remote::open(&root)?).get()),
            };
            return Ok(Self::Remote(remote, key.to_owned()));
        }
        match self {
            _ if name.contains("://") => Self::of(name),
            Self::Local(path) => Ok(Self::Local(path.parent().unwrap_or(Path::new(".")).join(name))),
            Self::Remote(remote, key) => {
                let folder = key.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
                Ok(Self::Remote(Arc::clone(remote), format!("{folder}{}", name.trim_start_matches("./"))))
            }
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Remote(remote, key) => remote.store.url_of(key),
        }
    }

    /// Its last part.
    pub(super) fn file_name(&self) -> String {
        let shown = self.shown();
        shown.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// The longest gap that is read and not skipped.
    fn near(&self) -> u64 {
        match self {
            Self::Local(_) => NEAR,
            Self::Remote(..) => NEAR_REMOTE,
        }
    }

    /// Whether it is a folder. Of a store everything is one that has no ending of a file.
    pub(super) fn is_folder(&self) -> bool {
        match self {
            Self::Local(path) => path.is_dir(),
            Self::Remote(_, key) => key.is_empty(),
        }
    }

    fn failed(&self, source: io::Error) -> PackError {
        PackError::Source { path: self.shown(), source }
    }

    /// All of the file.
    pub(super) async fn whole(self) -> Result<Stretch, PackError> {
        let bytes = match &self {
            Self::Local(path) => std::fs::metadata(path)
                .and_then(|meta| if meta.is_file() { Ok(meta.len()) } else { Err(io::Error::other("it is no file")) }),
            Self::Remote(remote, key) => match remote.store.head(key).await? {
                Some(bytes) => Ok(bytes),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "no such object")),
            },
        };
        let bytes = bytes.map_err(|e| self.failed(e))?;
        Ok(Stretch { place: self, range: 0..bytes })
    }

    /// All files of a folder and of the folders in it, in the order of their paths' parts.
    pub(super) async fn files(&self) -> Result<Vec<Found>, PackError> {
        let mut found = match self {
            Self::Local(root) => walk(root)?,
            Self::Remote(remote, _) => {
                let listed = remote.store.list("").await?;
                let of = |(key, bytes): (String, u64)| Found {
                    name: key.clone(),
                    whole: Stretch { place: Place::Remote(Arc::clone(remote), key), range: 0..bytes },
                };
                listed.into_iter().map(of).collect()
            }
        };
        found.sort_by(|a, b| a.name.split('/').cmp(b.name.split('/')));
        Ok(found)
    }
}

fn walk(root: &Path) -> Result<Vec<Found>, PackError> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(root).follow_links(true) {
        let failed = |e: walkdir::Error| {
            let path = e.path().unwrap_or(root).display().to_string();
            PackError::Source { path, source: e.into() }
        };
        let entry = entry.map_err(failed)?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = entry.path().strip_prefix(root).unwrap_or(entry.path()).display().to_string();
        let bytes = entry.metadata().map_err(failed)?.len();
        let place = Place::Local(entry.into_path());
        found.push(Found { name, whole: Stretch { place, range: 0..bytes } });
    }
    Ok(found)
}

pub(super) fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

impl Stretch {
    pub(super) fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// These bytes, or an error: never fewer.
    pub(super) async fn read(&self) -> Result<Bytes, PackError> {
        let bytes = match &self.place {
            Place::Local(path) => {
                let (path, range) = (path.clone(), self.range.clone());
                match apart(move || local(&path, range)).await.flatten() {
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Bytes::new(),
                    read => read.map_err(|e| self.place.failed(e))?,
                }
            }
            Place::Remote(..) if self.range.is_empty() => Bytes::new(),
            Place::Remote(remote, key) => remote.reader.get_range(key, self.range.clone(), &remote.counts).await?,
        };
        if bytes.len() as u64 == self.bytes() {
            return Ok(bytes);
        }
        Err(PackError::Changed { path: self.place.shown() })
    }
}

/// Runs what blocks on a thread of its own; a panic in it is an error.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    Handle::current().spawn_blocking(work).await.map_err(io::Error::other)
}

fn local(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    std::fs::File::open(path)?.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// A block of a file, which grows while the file is read on and on and begins small elsewhere. Blocks its thread, which must
/// not be one of a runtime.
#[derive(Debug)]
pub(super) struct Window {
    file: Stretch,
    runtime: Handle,
    sizes: [u64; 2],
    block: Bytes,
    block_at: u64,
}

impl Window {
    /// Blocks of from `least` to `most` bytes.
    pub(super) fn new(file: Stretch, runtime: Handle, sizes: [u64; 2]) -> Self {
        Self { file, runtime, sizes, block: Bytes::new(), block_at: 0 }
    }

    /// At least `wanted` bytes from `at` on, unless the file ends before.
    pub(super) fn at(&mut self, at: u64, wanted: u64) -> io::Result<Bytes> {
        let length = self.file.range.end;
        let (at, end) = (at.min(length), self.block_at + self.block.len() as u64);
        let held = end.saturating_sub(at);
        if at < self.block_at || held == 0 || held < wanted.min(length - at) {
            let [least, most] = self.sizes;
            let on = !self.block.is_empty() && (self.block_at..=end + self.file.place.near()).contains(&at);
            let size = if on { (2 * self.block.len() as u64).min(most) } else { least };
            let stop = at.saturating_add(size.max(wanted)).min(length);
            let stretch = Stretch { place: self.file.place.clone(), range: at..stop };
            self.block = self.runtime.block_on(stretch.read()).map_err(io::Error::other)?;
            self.block_at = at;
        }
        Ok(self.block.slice((at - self.block_at) as usize..))
    }
}

/// Reads a file here and there.
pub(super) struct Scan {
    window: Window,
    at: u64,
}

impl Scan {
    pub(super) fn new(file: Stretch, runtime: Handle) -> Self {
        Self { window: Window::new(file, runtime, [SCAN_LEAST, SCAN_MOST]), at: 0 }
    }
}

impl Read for Scan {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ahead = self.window.at(self.at, 1)?;
        let bytes = ahead.len().min(out.len());
        out[..bytes].copy_from_slice(&ahead[..bytes]);
        self.at += bytes as u64;
        Ok(bytes)
    }
}

impl Seek for Scan {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.window.file.range.end.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the file's start"))?;
        Ok(self.at)
    }
}
