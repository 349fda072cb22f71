//! A root in an object store, and the few operations that R2O needs of it.

use std::fmt;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};

use crate::{Operation, StorageError};

/// A folder, or a prefix in a bucket. Keys are relative to it, with `/` between their parts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: Path,
    url: String,
    folder: Option<PathBuf>,
    fence: Fence,
}

/// What says, before each write, whether this process may still write. Reads are always allowed.
#[derive(Clone, Default)]
pub struct Fence(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Fence {
    /// Writes happen while `holds` is true.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(holds)))
    }

    fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|holds| holds())
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.0.as_ref().map(|holds| holds())).finish()
    }
}

/// What [`Store::put_if_absent`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours: it was not there before.
    Created,
    /// Another object has the name already; nothing was written.
    Exists,
}

impl Store {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, root: Path, url: String, folder: Option<PathBuf>) -> Self {
        Self { inner, root, url, folder, fence: Fence::default() }
    }

    /// The same place, written to only while the fence holds.
    #[must_use]
    pub fn fenced(&self, fence: Fence) -> Store {
        Store { fence, ..self.clone() }
    }

    fn may(&self, operation: Operation, key: &str) -> Result<(), StorageError> {
        if self.fence.holds() { Ok(()) } else { Err(StorageError::Fenced { operation, url: self.url_of(key) }) }
    }

    /// The URL of the root, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of an object, for messages.
    pub fn url_of(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// The folder on this machine, when the store is one. Reading may then map or stream files directly.
    pub fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// The store whose root is `prefix` below this one's.
    pub fn child(&self, prefix: &str) -> Store {
        let prefix = prefix.trim_matches('/');
        if prefix.is_empty() {
            return self.clone();
        }
        Store {
            inner: Arc::clone(&self.inner),
            root: self.path_unchecked(prefix),
            url: self.url_of(prefix),
            folder: self.folder.as_ref().map(|f| f.join(prefix)),
            fence: self.fence.clone(),
        }
    }

    /// A part is taken as it is, so that what is listed can be read under that name; what no store can hold is escaped.
    fn path_unchecked(&self, key: &str) -> Path {
        let whole = |part| PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part));
        key.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |path, part| path.join(whole(part)))
    }

    /// Refuses keys that would leave the root or that no store can hold.
    fn path(&self, key: &str) -> Result<Path, StorageError> {
        let refuse = |reason: String| StorageError::InvalidKey { url: self.url.clone(), key: key.to_owned(), reason };
        if key.is_empty() {
            return Err(refuse("it is empty".into()));
        }
        Path::parse(key).map_err(|e| refuse(e.to_string()))?;
        if let Some(name) = key.rsplit('/').next()
            && let Some((_, digits)) = name.rsplit_once('#')
            && digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(refuse("names that end in # and digits are kept for unfinished files".into()));
        }
        Ok(self.path_unchecked(key))
    }

    fn error(&self, operation: Operation, key: &str, error: object_store::Error) -> StorageError {
        StorageError::classify(operation, self.url_of(key), error)
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    pub async fn get(&self, key: &str) -> Result<Bytes, StorageError> {
        let path = self.path(key)?;
        let read = async { self.inner.get(&path).await?.bytes().await };
        read.await.map_err(|e| self.error(Operation::Read, key, e))
    }

    /// The object, or `None` when there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get), but never [`StorageError::NotFound`].
    pub async fn get_if_exists(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        match self.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The bytes of `range`; fewer when the object ends before it does.
    ///
    /// # Errors
    /// When there is no such object, or it ends before the range starts.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let path = self.path(key)?;
        self.inner.get_range(&path, range).await.map_err(|e| self.error(Operation::Read, key, e))
    }

    /// Several ranges of one object, near ones in one request.
    ///
    /// # Errors
    /// As [`get_range`](Self::get_range).
    pub async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StorageError> {
        let path = self.path(key)?;
        self.inner.get_ranges(&path, ranges).await.map_err(|e| self.error(Operation::Read, key, e))
    }

    /// Writes the object, over another of that name. Readers see the old one or the new one, never a part.
    ///
    /// # Errors
    /// When it could not be written; the old object is then still there.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        let path = self.path(key)?;
        self.may(Operation::Write, key)?;
        let payload = PutPayload::from_bytes(bytes.into());
        self.inner.put(&path, payload).await.map_err(|e| self.error(Operation::Write, key, e))?;
        Ok(())
    }

    /// Writes the object unless one of that name exists. Of several callers at once exactly one gets [`Put::Created`].
    ///
    /// A client retries a put whose answer was lost, and may then find its own object: a caller to whom it matters puts
    /// something unmistakable into the bytes and reads back on [`Put::Exists`].
    ///
    /// # Errors
    /// When it is unknown whether it was written.
    pub async fn put_if_absent(&self, key: &str, bytes: impl Into<Bytes>) -> Result<Put, StorageError> {
        let path = self.path(key)?;
        self.may(Operation::Write, key)?;
        let payload = PutPayload::from_bytes(bytes.into());
        match self.inner.put_opts(&path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(e) => Err(self.error(Operation::Write, key, e)),
        }
    }

    /// The size of the object in bytes, or `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, StorageError> {
        let path = self.path(key)?;
        match self.inner.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error(Operation::Read, key, e)),
        }
    }

    /// All objects below `prefix` (a whole part of the path, or empty for everything), with their sizes in bytes, sorted by
    /// key. A folder that does not exist is empty.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let at = self.path_unchecked(prefix);
        let listed: Result<Vec<_>, _> = self.inner.list(Some(&at)).try_collect().await;
        let metas = match listed {
            Ok(metas) => metas,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(self.error(Operation::List, prefix, e)),
        };
        let mut found: Vec<(String, u64)> =
            metas.into_iter().filter_map(|meta| Some((self.key_of(&meta.location)?, meta.size))).collect();
        found.sort();
        Ok(found)
    }

    fn key_of(&self, location: &Path) -> Option<String> {
        let parts = location.prefix_match(&self.root)?;
        let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
        Some(parts.join("/"))
    }

    /// Deletes the object; one that is not there counts as deleted.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn delete(&self, key: &str) -> Result<(), StorageError> {
        let path = self.path(key)?;
        self.may(Operation::Delete, key)?;
        match self.inner.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.error(Operation::Delete, key, e)),
        }
    }

    /// Starts a large object whose parts are sent while the rest is still being made.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn upload(&self, key: &str) -> Result<Upload, StorageError> {
        let path = self.path(key)?;
        self.may(Operation::Write, key)?;
        let upload = self.inner.put_multipart(&path).await.map_err(|e| self.error(Operation::Write, key, e))?;
        let writer = WriteMultipart::new_with_chunk_size(upload, UPLOAD_PART);
        Ok(Upload { writer, url: self.url_of(key) })
    }
}

/// Bytes per part of an [`Upload`]; S3 wants at least 5 MiB and at most 10000 parts.
const UPLOAD_PART: usize = 8 << 20;
/// Parts of an [`Upload`] that may be on their way at once.
const UPLOAD_IN_FLIGHT: usize = 4;

/// A large object being written. It exists when, and only when, [`finish`](Self::finish) returned `Ok`.
#[derive(Debug)]
pub struct Upload {
    writer: WriteMultipart,
    url: String,
}

impl Upload {
    /// Adds bytes at the end; waits while too many parts are on their way.
    ///
    /// # Errors
    /// When a part could not be written; the upload is then useless.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), StorageError> {
        let waited = self.writer.wait_for_capacity(UPLOAD_IN_FLIGHT).await;
        waited.map_err(|e| StorageError::classify(Operation::Write, self.url.clone(), e))?;
        self.writer.put(bytes.into());
        Ok(())
    }

    /// Makes the object appear, over another of that name.
    ///
    /// # Errors
    /// When it could not be written; nothing has appeared then.
    pub async fn finish(self) -> Result<(), StorageError> {
        let url = self.url;
        self.writer.finish().await.map_err(|e| StorageError::classify(Operation::Write, url, e))?;
        Ok(())
    }

    /// Throws away what was sent.
    ///
    /// # Errors
    /// When parts may be left behind; they never become an object.
    pub async fn abort(self) -> Result<(), StorageError> {
        let url = self.url;
        self.writer.abort().await.map_err(|e| StorageError::classify(Operation::Write, url, e))
    }
}
