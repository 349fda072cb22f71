//! The manifest: what a checkpoint consists of, and how it comes to exist.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::object::object_key;
use super::{CheckpointError, MANIFESTS, OBJECTS, verify_manifest};
use crate::{Put, Store};

/// The manifest format that this program writes and reads.
const FORMAT: u32 = 1;

/// One checkpoint of a job, after `step` committed steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of this structure; [`Manifest::FORMAT`].
    pub format: u32,
    /// The job's name.
    pub job: String,
    /// Committed steps that the state contains.
    pub step: u64,
    /// Whole epochs that the state contains.
    pub epoch: u64,
    /// The generation that took it.
    pub generation: u64,
    /// The job's resolved spec.
    pub spec: serde_json::Value,
    /// All tensors of the state, in the state's order.
    pub tensors: Vec<TensorEntry>,
    /// When it was committed, in milliseconds since 1970.
    pub created_unix_ms: i64,
    /// Versions of the programs that took part.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

impl Manifest {
    /// The current format.
    pub const FORMAT: u32 = FORMAT;

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes).sum()
    }

    /// The entry of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorEntry {
    /// Its name in the state, `online.backbone.conv1.weight`.
    pub name: String,
    /// The element type, in safetensors' words: `F32`, `BF16`, `I64`.
    pub dtype: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// BLAKE3 of its bytes in hex: the name of its object.
    pub blake3: String,
    /// The number of bytes.
    pub bytes: u64,
}

/// A manifest that is there; it may still be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestInfo {
    /// Committed steps.
    pub step: u64,
    /// Its key in the store.
    pub key: String,
    /// Size of the manifest itself in bytes.
    pub bytes: u64,
}

/// What [`commit`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The checkpoint exists now.
    Created,
    /// A checkpoint of this step existed already; it stays as it is.
    Exists,
}

/// The key of a step's manifest.
pub(crate) fn manifest_key(step: u64) -> String {
    format!("{MANIFESTS}/{step:012}.json")
}

/// Makes a checkpoint exist: puts its manifest, unless one of that step is there.
///
/// # Errors
/// [`CheckpointError::Incomplete`] when an object that it names is not stored in full size; nothing is written then.
pub async fn commit(store: &Store, manifest: &Manifest) -> Result<Committed, CheckpointError> {
    let missing = missing_objects(store, manifest).await?;
    if !missing.is_empty() {
        let (url, step) = (store.url().to_owned(), manifest.step);
        return Err(CheckpointError::Incomplete { url, step, missing });
    }
    let key = manifest_key(manifest.step);
    let text = seal(manifest).map_err(|reason| CheckpointError::DamagedManifest { url: store.url_of(&key), reason })?;
    match store.put_if_absent(&key, text.clone()).await? {
        Put::Created => Ok(Committed::Created),
        // A put whose answer was lost is tried again and then finds itself.
        Put::Exists if store.get(&key).await? == text.as_bytes() => Ok(Committed::Created),
        Put::Exists => Ok(Committed::Exists),
    }
}

/// Names of the tensors whose object is absent or of another size, by one listing.
async fn missing_objects(store: &Store, manifest: &Manifest) -> Result<Vec<String>, CheckpointError> {
    let stored: HashMap<String, u64> = store.list(OBJECTS).await?.into_iter().collect();
    let absent = manifest.tensors.iter().filter(|t| stored.get(&object_key(&t.blake3)) != Some(&t.bytes));
    Ok(absent.map(|t| t.name.clone()).collect())
}

/// The checkpoints that exist, oldest first.
///
/// # Errors
/// When the store cannot list.
pub async fn list(store: &Store) -> Result<Vec<ManifestInfo>, CheckpointError> {
    let found = store.list(MANIFESTS).await?;
    let step_of = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    Ok(found.into_iter().filter_map(|(key, bytes)| Some(ManifestInfo { step: step_of(&key)?, key, bytes })).collect())
}

/// Reads one manifest and checks that it is what was written, and of this step.
///
/// # Errors
/// [`CheckpointError::NoSuchStep`], [`CheckpointError::DamagedManifest`], [`CheckpointError::UnknownFormat`].
pub async fn load_manifest(store: &Store, step: u64) -> Result<Manifest, CheckpointError> {
    let key = manifest_key(step);
    let Some(text) = store.get_if_exists(&key).await? else {
        return Err(CheckpointError::NoSuchStep { url: store.url().to_owned(), step });
    };
    let url = store.url_of(&key);
    let damaged = |reason: String| CheckpointError::DamagedManifest { url: url.clone(), reason };
    let manifest = unseal(&text).map_err(damaged)?;
    if manifest.format != FORMAT {
        return Err(CheckpointError::UnknownFormat { url, found: manifest.format, known: FORMAT });
    }
    if manifest.step != step {
        return Err(damaged(format!("it says step {}, its name says {step}", manifest.step)));
    }
    Ok(manifest)
}

/// A checkpoint that was passed over, and why.
#[derive(Debug)]
pub struct Refused {
    /// Its step.
    pub step: u64,
    /// What is wrong with it.
    pub reason: CheckpointError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.step, self.reason)
    }
}

/// The newest checkpoint that can be trusted.
#[derive(Debug)]
pub struct Newest {
    /// Its manifest.
    pub manifest: Manifest,
    /// The newer ones that are damaged, newest first: worth a warning.
    pub refused: Vec<Refused>,
}

/// The newest checkpoint whose manifest and tensors all pass their checksums, or `None` when there is no checkpoint at all.
/// Reads the tensors of each candidate once.
///
/// # Errors
/// [`CheckpointError::NoneReadable`] when checkpoints exist but none is whole; a job must not start from scratch then.
pub async fn newest(store: &Store) -> Result<Option<Newest>, CheckpointError> {
    let mut refused = Vec::new();
    for info in list(store).await?.into_iter().rev() {
        match whole(store, info.step).await {
            Ok(manifest) => return Ok(Some(Newest { manifest, refused })),
            // A store that fails says nothing about the checkpoint: falling back to an older one would lose work.
            Err(CheckpointError::Storage(e)) => return Err(e.into()),
            Err(reason) => refused.push(Refused { step: info.step, reason }),
        }
    }
    if refused.is_empty() {
        return Ok(None);
    }
    Err(CheckpointError::NoneReadable { url: store.url().to_owned(), refused })
}

async fn whole(store: &Store, step: u64) -> Result<Manifest, CheckpointError> {
    let manifest = load_manifest(store, step).await?;
    let report = verify_manifest(store, &manifest).await?;
    match report.bad.into_iter().next() {
        None => Ok(manifest),
        Some(bad) => {
            let url = store.url_of(&object_key(&bad.blake3));
            Err(CheckpointError::DamagedTensor { tensor: bad.tensor, url, damage: bad.damage })
        }
    }
}

/// The last field of a manifest's text: BLAKE3 of the text with zeros in its place.
const SEAL: &str = "\"seal\": \"";
const SEAL_LENGTH: usize = 64;

#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    seal: String,
}

/// JSON that carries its own checksum, yet is plain JSON to every other tool.
fn seal(manifest: &Manifest) -> Result<String, String> {
    let zeros = "0".repeat(SEAL_LENGTH);
    let blank = Sealed { manifest, seal: zeros.clone() };
    let text = serde_json::to_string_pretty(&blank).map_err(|e| e.to_string())?;
    let at = text.rfind(SEAL).ok_or("the seal was not written")? + SEAL.len();
    let digest = blake3::hash(text.as_bytes()).to_hex();
    Ok(format!("{}{digest}{}", &text[..at], &text[at + SEAL_LENGTH..]))
}

fn unseal(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let at = text.rfind(SEAL).ok_or("it ends early, or has no seal")? + SEAL.len();
    let digest = text.get(at..at + SEAL_LENGTH).ok_or("it ends early")?;
    let blank = format!("{}{}{}", &text[..at], "0".repeat(SEAL_LENGTH), &text[at + SEAL_LENGTH..]);
    // Random bytes never match a hash: builds for fuzzing come as far as what lies behind it.
    if !cfg!(fuzzing) && blake3::hash(blank.as_bytes()).to_hex().as_str() != digest {
        return Err("its seal (BLAKE3) does not match its content".into());
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}
