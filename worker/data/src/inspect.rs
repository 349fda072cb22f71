//! Shows a packed set and proves that it is whole: every byte against its checksum, every sample against its members.

use r2o_storage::shard::{self, SampleEntry, SetIndex, ShardEntry};
use serde::Serialize;

use crate::dataset::binding;
use crate::decode::Decoder;
use crate::error::DataError;
use crate::labels::{Binding, Maps};

/// What is in a set, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    /// Where the set lies.
    pub url: String,
    /// Samples.
    pub samples: u64,
    /// Bytes of all shards.
    pub bytes: u64,
    /// SLIC segments of the stored label maps.
    pub segments: u32,
    /// Side of the stored label maps in pixels.
    pub slic_size: u32,
    /// Samples with a ground-truth mask.
    pub masks: u64,
    /// Smallest and largest width and height: [width, height] each.
    pub smallest: [u32; 2],
    /// See `smallest`.
    pub largest: [u32; 2],
    /// Samples of each class, in the classes' order.
    pub classes: Vec<(String, u64)>,
    /// Each shard.
    pub shards: Vec<ShardReport>,
    /// Everything that is wrong, each with its name.
    pub bad: Vec<String>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardReport {
    /// Key of the tar.
    pub file: String,
    /// Bytes.
    pub bytes: u64,
    /// Samples.
    pub samples: u64,
    /// Chunks.
    pub chunks: usize,
    /// Nothing is wrong with it.
    pub whole: bool,
}

/// Reads the whole set at `url`.
///
/// # Errors
/// When there is no set or its index is damaged; damage below the index is in the report.
pub async fn inspect(url: &str) -> Result<InspectReport, DataError> {
    let store = r2o_storage::open(url)?;
    let set = shard::read_set(&store).await?;
    let mut report = InspectReport {
        url: store.url().to_owned(),
        samples: set.samples(),
        bytes: set.shards.iter().map(|s| s.bytes).sum(),
        segments: set.prior.segments,
        slic_size: set.prior.size,
        masks: 0,
        smallest: [u32::MAX; 2],
        largest: [0; 2],
        classes: set.classes.iter().map(|class| (class.clone(), 0)).collect(),
        shards: Vec::new(),
        bad: Vec::new(),
    };
    for entry in &set.shards {
        let before = report.bad.len();
        shard_of(&store, &set, entry, &mut report).await;
        report.shards.push(ShardReport {
            file: entry.file.clone(),
            bytes: entry.bytes,
            samples: entry.samples(),
            chunks: entry.chunks.len(),
            whole: report.bad.len() == before,
        });
    }
    Ok(report)
}

async fn shard_of(store: &r2o_storage::Store, set: &SetIndex, entry: &ShardEntry, report: &mut InspectReport) {
    let index = match shard::read_shard(store, entry).await {
        Ok(index) => index,
        Err(error) => return report.bad.push(error.to_string()),
    };
    let url = store.url_of(&entry.file);
    let bytes = match store.get(&entry.file).await {
        Ok(bytes) => bytes,
        Err(error) => return report.bad.push(error.to_string()),
    };
    if (bytes.len() as u64) < entry.bytes {
        report.bad.push(format!("{url} is truncated: {} of {} bytes", bytes.len(), entry.bytes));
    } else if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
        report.bad.push(format!("{url} does not match its checksum"));
    }
    let mut checker = Checker { decoder: Decoder::new(), maps: Maps::new(), binding: binding(set), labels: Vec::new() };
    let mut first = 0;
    for (number, chunk) in entry.chunks.iter().enumerate() {
        let samples = &index.samples[first..first + chunk.samples as usize];
        first += chunk.samples as usize;
        let range = chunk.offset as usize..(chunk.offset + chunk.bytes) as usize;
        let intact = bytes.get(range).is_some_and(|b| blake3::hash(b).to_hex().as_str() == chunk.blake3);
        for sample in samples {
            report.count(sample);
            if let Err(reason) = checker.check(sample, &bytes) {
                report.bad.push(format!("sample {} of {url}: {reason}", sample.key));
            }
        }
        if !intact {
            let keys = samples.first().zip(samples.last()).map(|(a, b)| format!("{} to {}", a.key, b.key));
            report.bad.push(format!("chunk {number} of {url} (samples {}) is damaged", keys.unwrap_or_default()));
        }
    }
}

impl InspectReport {
    fn count(&mut self, sample: &SampleEntry) {
        self.masks += u64::from(sample.mask.is_some());
        self.smallest = [self.smallest[0].min(sample.width), self.smallest[1].min(sample.height)];
        self.largest = [self.largest[0].max(sample.width), self.largest[1].max(sample.height)];
        if let Some((_, count)) = sample.label.and_then(|label| self.classes.get_mut(label as usize)) {
            *count += 1;
        }
    }
}

/// Decodes samples with buffers of its own.
struct Checker {
    decoder: Decoder,
    maps: Maps,
    binding: Binding,
    labels: Vec<u8>,
}

impl Checker {
    fn check(&mut self, sample: &SampleEntry, bytes: &[u8]) -> Result<(), String> {
        let member = |m: shard::Member| bytes.get(m.offset as usize..(m.offset + m.bytes) as usize);
        let image = member(sample.image).ok_or("its image lies beyond the shard's end")?;
        let canvas = self.decoder.decode(image).map_err(|e| format!("its image cannot be decoded: {e}"))?;
        if (canvas.width, canvas.height) != (sample.width, sample.height) {
            return Err(format!("its image is {} x {} pixels, the index says otherwise", canvas.width, canvas.height));
        }
        let prior = sample.prior.ok_or("it has no label map (KEY.slic): pack the set again")?;
        let prior = member(prior).ok_or("its label map lies beyond the shard's end")?;
        self.labels.resize((self.binding.size * self.binding.size) as usize, 0);
        let read = self.maps.read(&self.binding, prior, image, &mut self.labels);
        read.map_err(|e| format!("its label map cannot be used: {e}"))
    }
}
