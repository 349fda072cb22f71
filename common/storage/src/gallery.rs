//! The gallery: how a few fixed images were divided at the end of each epoch. Pages are `gallery/<epoch, 6 digits>.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{StorageError, Store};

const PREFIX: &str = "gallery";
const IN_FLIGHT: usize = 8;

/// Why the gallery could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GalleryError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A page is not what was written.
    #[error("gallery page {url} is damaged: {reason}; remove it to read the rest")]
    Damaged {
        /// The page.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The fixed images at one moment of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GalleryPage {
    /// Whole epochs done; 0: before the first step.
    pub epoch: u64,
    /// Committed steps.
    pub step: u64,
    /// Clusters per lane at that moment.
    pub k: u32,
    /// How well the masks fit the objects of those images that have ground truth: Average Best Overlap, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_best_overlap: Option<f64>,
    /// The same of the prior's regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior_average_best_overlap: Option<f64>,
    /// The images, always the same ones in the same order.
    pub images: Vec<GalleryImage>,
}

/// One image of a page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GalleryImage {
    /// The sample's number in the data set.
    pub sample: u64,
    /// The sample's key.
    pub key: String,
    /// The raw view as a PNG; empty on all pages but the first.
    pub raw_png: Base64,
    /// The first view, likewise.
    pub view1_png: Base64,
    /// The second view, likewise.
    pub view2_png: Base64,
    /// The prior's label map as an 8-bit grey PNG (grey = label), likewise.
    pub prior_png: Base64,
    /// The predicted mask's label map as an 8-bit grey PNG.
    pub mask_png: Base64,
    /// How many different labels the mask has.
    pub mask_count: u32,
}

/// Bytes that are base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl std::ops::Deref for Base64 {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Writes a page, over an earlier one of the same epoch.
///
/// # Errors
/// When the store fails.
pub async fn write_page(store: &Store, page: &GalleryPage) -> Result<(), GalleryError> {
    // Structures of numbers, strings and lists always have a JSON text.
    let text = serde_json::to_vec(page).unwrap_or_default();
    store.put(&key(page.epoch), text).await?;
    Ok(())
}

/// All pages in the order of their epochs.
///
/// # Errors
/// [`GalleryError::Damaged`] names the page.
pub async fn read_all(store: &Store) -> Result<Vec<GalleryPage>, GalleryError> {
    let keys = store.list(PREFIX).await?.into_iter().filter(|(key, _)| key.ends_with(".json"));
    let reads = stream::iter(keys.map(|(key, _)| read_page(store.clone(), key)));
    let mut pages: Vec<GalleryPage> = reads.buffered(IN_FLIGHT).try_collect().await?;
    pages.sort_by_key(|page| page.epoch);
    Ok(pages)
}

/// The epochs of which there is a page, in their order.
///
/// # Errors
/// When the store fails.
pub async fn epochs(store: &Store) -> Result<Vec<u64>, GalleryError> {
    let keys = store.list(PREFIX).await?.into_iter();
    let epoch = |key: String| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    let mut epochs: Vec<u64> = keys.filter_map(|(key, _)| epoch(key)).collect();
    epochs.sort_unstable();
    Ok(epochs)
}

/// The page of an epoch.
///
/// # Errors
/// [`GalleryError::Damaged`] names the page.
pub async fn read(store: &Store, epoch: u64) -> Result<GalleryPage, GalleryError> {
    read_page(store.clone(), key(epoch)).await
}

fn key(epoch: u64) -> String {
    format!("{PREFIX}/{epoch:06}.json")
}

async fn read_page(store: Store, key: String) -> Result<GalleryPage, GalleryError> {
    let bytes = store.get(&key).await?;
    serde_json::from_slice(&bytes).map_err(|e| GalleryError::Damaged { url: store.url_of(&key), reason: e.to_string() })
}
