//! One shard in memory: a tar with fixed headers, and where everything lies in it.

use bytes::Bytes;
use r2o_storage::shard::{ChunkEntry, Member, SampleEntry, ShardIndex};
use tar::{EntryType, Header};

/// Size at which a chunk ends: one ranged read of some ten milliseconds.
const CHUNK_BYTES: u64 = 8 << 20;
/// Samples of a chunk at most, so that small images still come in many chunks and are shuffled well.
const CHUNK_SAMPLES: u32 = 64;

/// The members of one sample.
pub(super) struct Members {
    pub(super) entry: SampleEntry,
    /// Extension of the image.
    pub(super) extension: &'static str,
    pub(super) json: Vec<u8>,
    pub(super) image: Bytes,
    pub(super) prior: Vec<u8>,
    pub(super) mask: Option<Bytes>,
}

/// A shard's bytes and index.
pub(super) struct Tarball {
    pub(super) bytes: Vec<u8>,
    pub(super) index: ShardIndex,
    pub(super) chunks: Vec<ChunkEntry>,
}

impl Tarball {
    pub(super) fn build(samples: Vec<Members>) -> Self {
        let mut tarball = Self { bytes: Vec::new(), index: ShardIndex { samples: Vec::new() }, chunks: Vec::new() };
        let mut start = 0;
        let mut count = 0;
        for sample in samples {
            tarball.push(sample);
            count += 1;
            if tarball.bytes.len() as u64 - start >= CHUNK_BYTES || count >= CHUNK_SAMPLES {
                tarball.close(&mut start, &mut count);
            }
        }
        tarball.close(&mut start, &mut count);
        // Two zero blocks end a tar.
        tarball.bytes.extend([0; 1024]);
        tarball
    }

    fn close(&mut self, start: &mut u64, count: &mut u32) {
        if *count > 0 {
            let end = self.bytes.len() as u64;
            let hash = blake3::hash(&self.bytes[*start as usize..]).to_hex().to_string();
            self.chunks.push(ChunkEntry { offset: *start, bytes: end - *start, samples: *count, blake3: hash });
            (*start, *count) = (end, 0);
        }
    }

    fn push(&mut self, sample: Members) {
        let mut entry = sample.entry;
        let key = entry.key.clone();
        self.member(&format!("{key}.json"), &sample.json);
        entry.image = self.member(&format!("{key}.{}", sample.extension), &sample.image);
        entry.prior = Some(self.member(&format!("{key}.slic"), &sample.prior));
        entry.mask = sample.mask.map(|mask| self.member(&format!("{key}.mask.png"), &mask));
        self.index.samples.push(entry);
    }

    fn member(&mut self, name: &str, content: &[u8]) -> Member {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        // Keys are numbers and extensions are short: the name always fits.
        let fits = header.set_path(name);
        debug_assert!(fits.is_ok(), "{name}");
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        let offset = self.bytes.len() as u64;
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Member { offset, bytes: content.len() as u64 }
    }
}
