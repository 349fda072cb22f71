//! Chunks kept on a local disk, within a budget that all workers of a host share.
//!
//! ```text
//! FOLDER/r2o-chunk-cache        the mark: what the folder is, and how many bytes its entries take
//! FOLDER/SET/used               touched while a worker reads this set
//! FOLDER/SET/BLAKE3             a chunk, see `entry`
//! FOLDER/SET/BLAKE3.UUID.part   one that is being written
//! ```
//!
//! An entry is written beside its place, locked, and then renamed: whoever is killed leaves no half entry, and its unlocked
//! remains go when the next worker opens the cache. The mark is locked whenever its count changes, so that workers never
//! take more than the budget together. What is read is checked, every time.
//!
//! A full cache keeps what it has of the set that is being read: every epoch has a new order, so that a chunk that stays is as
//! good as one that comes, and half of a set cached is half of the reads saved; giving the oldest away would save far fewer.
//! Only sets that nobody has read for a while make room.

mod entry;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub(crate) use entry::Entry;
use uuid::Uuid;

use crate::error::CacheError;
use crate::stats::Put;

const MARK: &str = "r2o-chunk-cache";
const MARK_TEXT: &str = "r2o chunk cache 1\n";
const USED: &str = "used";
const PART: &str = ".part";
/// A set that no worker has read for so long makes room for others.
const IDLE: Duration = Duration::from_secs(600);
/// How often the mark of use is renewed.
const TOUCH: Duration = Duration::from_secs(60);

/// A disk cache's place and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Made when it is not there; otherwise empty, or a cache already.
    pub folder: PathBuf,
    /// Most bytes of all entries, of all sets and of all workers of the host.
    pub bytes: u64,
}

impl CacheOptions {
    /// Makes the folder, if need be, and finds out whether it can be used.
    ///
    /// # Errors
    /// When it holds something else, or the system refuses.
    pub fn check(&self) -> Result<(), CacheError> {
        self.claim().map(drop)
    }

    /// The mark, made if the folder is empty.
    fn claim(&self) -> Result<File, CacheError> {
        let folder = &self.folder;
        let failed = |source| CacheError::Folder { folder: folder.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(MARK);
        if !path.exists() && fs::read_dir(folder).map_err(failed)?.any(|e| e.is_ok_and(|e| e.file_name() != MARK)) {
            return Err(CacheError::NotOurs { folder: folder.clone() });
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut text = vec![0; MARK_TEXT.len()];
        let length = file.read_at(&mut text, 0).map_err(failed)?;
        // Nothing, where its maker was killed before the first word.
        if text[..length] != MARK_TEXT.as_bytes()[..length] {
            return Err(CacheError::NotOurs { folder: folder.clone() });
        }
        file.write_all_at(MARK_TEXT.as_bytes(), 0).map_err(failed)?;
        Ok(file)
    }
}

/// The entries of one set.
#[derive(Debug)]
pub(crate) struct DiskCache {
    options: CacheOptions,
    set: PathBuf,
    mark: Mutex<Mark>,
}

#[derive(Debug)]
struct Mark {
    file: File,
    touched: Option<Instant>,
}

impl DiskCache {
    /// Opens the cache for the set of this name, 32 hexadecimal digits.
    ///
    /// # Errors
    /// When the folder is not a cache's, or cannot be used.
    pub(crate) fn open(options: &CacheOptions, set: &str) -> Result<Self, CacheError> {
        let mark = Mutex::new(Mark { file: options.claim()?, touched: None });
        let cache = Self { options: options.clone(), set: options.folder.join(set), mark };
        let opened = cache.locked(|cache, mark| {
            fs::create_dir_all(&cache.set)?;
            cache.touch(mark)?;
            // What was killed between a change and its count is mended here.
            let mut used = cache.clean()?;
            cache.make_room(&mut used, 0)?;
            // The budget may be smaller than it was.
            for entry in if used > options.bytes { entries(&cache.set)? } else { Vec::new() } {
                used = if used > options.bytes { remove(&entry, used)? } else { used };
            }
            mark.set_used(used)
        });
        opened.map_err(|source| CacheError::Folder { folder: options.folder.clone(), source })?;
        Ok(cache)
    }

    /// Whether there is an entry, whole or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.set.join(name).exists()
    }

    /// The entry of a chunk of this many bytes; `None`: there is none.
    ///
    /// # Errors
    /// When it is damaged or cannot be read; it is gone then.
    pub(crate) fn entry(&self, name: &str, length: u64) -> io::Result<Option<Entry>> {
        match Entry::open(&self.set.join(name), name, length) {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                self.discard(name);
                Err(error)
            }
        }
    }

    /// Takes an entry out that turned out to be damaged.
    pub(crate) fn discard(&self, name: &str) {
        let gone = self.locked(|cache, mark| {
            let used = remove(&cache.set.join(name), mark.used()?)?;
            mark.set_used(used)
        });
        if let Err(error) = gone {
            tracing::warn!("cannot take the damaged entry {name} out of {}: {error}", self.set.display());
        }
    }

    /// Keeps a chunk whose bytes are known to be right.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it is left then.
    pub(crate) fn put(&self, name: &str, chunk: &[u8]) -> io::Result<Put> {
        let (path, size) = (self.set.join(name), entry::size(chunk.len() as u64));
        if path.exists() {
            return Ok(Put::Kept);
        }
        let part = self.set.join(format!("{name}.{}{PART}", Uuid::new_v4().simple()));
        let reserved = self.locked(|cache, mark| {
            cache.touch(mark)?;
            let mut used = mark.used()?;
            cache.make_room(&mut used, size)?;
            if used + size > cache.options.bytes {
                return mark.set_used(used).map(|()| None);
            }
            // Its length counts from now on, whoever looks, and the lock says that its writer lives.
            let file = OpenOptions::new().write(true).create_new(true).open(&part)?;
            file.lock()?;
            file.set_len(size)?;
            mark.set_used(used + size).map(|()| Some(file))
        })?;
        let Some(file) = reserved else { return Ok(Put::Full) };
        let written = entry::write(&file, name, chunk);
        self.locked(|_, mark| {
            if written.is_ok() && !path.exists() {
                return fs::rename(&part, &path);
            }
            // Another worker was faster, or the disk is full.
            let used = remove(&part, mark.used()?)?;
            mark.set_used(used)
        })?;
        written.map(|()| Put::Kept)
    }

    /// Bytes of all entries, as counted.
    pub(crate) fn used(&self) -> u64 {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).used().unwrap_or(0)
    }

    /// Does `work` while no other thread and no other process changes the cache.
    fn locked<T>(&self, work: impl FnOnce(&Self, &mut Mark) -> io::Result<T>) -> io::Result<T> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        mark.file.lock()?;
        let done = work(self, &mut mark);
        mark.file.unlock()?;
        done
    }

    fn touch(&self, mark: &mut Mark) -> io::Result<()> {
        if mark.touched.is_none_or(|at| at.elapsed() > TOUCH) {
            let used = OpenOptions::new().write(true).create(true).truncate(false).open(self.set.join(USED))?;
            used.set_modified(SystemTime::now())?;
            mark.touched = Some(Instant::now());
        }
        Ok(())
    }

    /// Removes entries of sets that nobody reads, the longest unread first, until there is room for `size` more.
    fn make_room(&self, used: &mut u64, size: u64) -> io::Result<()> {
        if *used + size <= self.options.bytes {
            return Ok(());
        }
        let mut idle: Vec<(SystemTime, PathBuf)> = sets(&self.options.folder)?
            .into_iter()
            .filter(|set| *set != self.set)
            .map(|set| (fs::metadata(set.join(USED)).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH), set))
            .filter(|(at, _)| at.elapsed().is_ok_and(|idle| idle > IDLE))
            .collect();
        idle.sort();
        for entry in idle.iter().map(|(_, set)| entries(set)).collect::<io::Result<Vec<_>>>()?.into_iter().flatten() {
            if *used + size <= self.options.bytes {
                break;
            }
            *used = remove(&entry, *used)?;
        }
        Ok(())
    }

    /// Removes what the killed left half written, and counts the rest.
    fn clean(&self) -> io::Result<u64> {
        let mut used = 0;
        for entry in
            sets(&self.options.folder)?.iter().map(|set| entries(set)).collect::<io::Result<Vec<_>>>()?.concat()
        {
            let Ok(file) = File::open(&entry) else { continue };
            let part = entry.extension().is_some_and(|extension| extension == &PART[1..]);
            if part && file.try_lock().is_ok() {
                fs::remove_file(&entry)?;
            } else {
                used += file.metadata()?.len();
            }
        }
        Ok(used)
    }
}

impl Mark {
    /// Bytes of all entries. What cannot be read is mended when the cache is next opened.
    fn used(&self) -> io::Result<u64> {
        let mut text = [0; 20];
        self.file.read_exact_at(&mut text, MARK_TEXT.len() as u64)?;
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{MARK} has no count")))
    }

    fn set_used(&self, used: u64) -> io::Result<()> {
        self.file.write_all_at(format!("{used:020}").as_bytes(), MARK_TEXT.len() as u64)
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The folders of sets. A link is none, and neither is a folder of another name: what we did not make, we leave alone.
fn sets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    found(folder, |name, kind| kind.is_dir() && is_hex(name, 32))
}

/// The entries of a set, those that are being written included.
fn entries(set: &Path) -> io::Result<Vec<PathBuf>> {
    found(set, |name, kind| {
        let (hash, rest) = name.split_at_checked(64).unwrap_or((name, ""));
        kind.is_file() && is_hex(hash, 64) && (rest.is_empty() || rest.ends_with(PART))
    })
}

fn found(folder: &Path, ours: impl Fn(&str, fs::FileType) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if ours(entry.file_name().to_str().unwrap_or_default(), entry.file_type()?) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes an entry, and gives the count without it.
fn remove(entry: &Path, used: u64) -> io::Result<u64> {
    let size = match fs::metadata(entry) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(used),
        Err(error) => return Err(error),
    };
    fs::remove_file(entry)?;
    Ok(used.saturating_sub(size))
}
