//! One chunk in a file of the disk cache, in blocks that are checked one by one, so that a sample is read alone.
//!
//! ```text
//! 8 bytes        R2OCHNK1
//! 8 bytes        length of the chunk
//! 16 bytes each  XXH3-128 of every block of 64 KiB
//! 16 bytes       XXH3-128 of all that, and of the entry's name
//! the rest       the chunk
//! ```
//!
//! Numbers are little-endian. The hashes guard against torn writes, rot and mix-ups; that the chunk is the one that was packed
//! is checked by its BLAKE3 before it is written.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

const MAGIC: [u8; 8] = *b"R2OCHNK1";
const BLOCK: usize = 64 << 10;
const HASH: usize = 16;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Bytes of the file of a chunk of so many bytes.
pub(super) fn size(length: u64) -> u64 {
    head(length) + length
}

fn head(length: u64) -> u64 {
    (MAGIC.len() + 8) as u64 + (length.div_ceil(BLOCK as u64) + 1) * HASH as u64
}

fn seal(head: &[u8], name: &str) -> [u8; HASH] {
    let mut hasher = Xxh3Default::new();
    hasher.update(head);
    hasher.update(name.as_bytes());
    hasher.digest128().to_le_bytes()
}

/// Writes a chunk.
pub(super) fn write(mut file: &File, name: &str, chunk: &[u8]) -> io::Result<()> {
    let mut head = MAGIC.to_vec();
    head.extend((chunk.len() as u64).to_le_bytes());
    chunk.chunks(BLOCK).for_each(|block| head.extend(xxh3_128(block).to_le_bytes()));
    let seal = seal(&head, name);
    head.extend(seal);
    file.write_all(&head)?;
    file.write_all(chunk)
}

/// A chunk's file, opened for reading: its head is whole.
#[derive(Debug)]
pub(crate) struct Entry {
    file: File,
    head: Vec<u8>,
    length: u64,
}

impl Entry {
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none, [`io::ErrorKind::InvalidData`] when it is not what was written.
    pub(super) fn open(path: &Path, name: &str, length: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() != size(length) {
            return Err(damaged("it is not as long as its chunk"));
        }
        let mut head = vec![0; head(length) as usize];
        file.read_exact_at(&mut head, 0)?;
        let (hashed, found) = head.split_at(head.len() - HASH);
        if !hashed.starts_with(&MAGIC) || hashed[8..16] != length.to_le_bytes() || found != seal(hashed, name) {
            return Err(damaged("its head does not match its checksum"));
        }
        Ok(Self { file, head, length })
    }

    /// Appends the bytes of `range` of the chunk to `out`, checked.
    ///
    /// # Errors
    /// When a block is not what was written, or the system refuses.
    pub(crate) fn read(&self, range: Range<usize>, out: &mut Vec<u8>, room: &mut Vec<u8>) -> io::Result<()> {
        if range.start > range.end || range.end as u64 > self.length {
            return Err(damaged("a range beyond its chunk"));
        }
        let from = range.start / BLOCK * BLOCK;
        let to = range.end.next_multiple_of(BLOCK).min(self.length as usize);
        room.resize(to - from, 0);
        self.file.read_exact_at(room, self.head.len() as u64 + from as u64)?;
        for (number, block) in (from / BLOCK..).zip(room.chunks(BLOCK)) {
            let at = MAGIC.len() + 8 + number * HASH;
            if self.head[at..at + HASH] != xxh3_128(block).to_le_bytes() {
                return Err(damaged("a block does not match its checksum"));
            }
        }
        out.extend_from_slice(&room[range.start - from..range.end - from]);
        Ok(())
    }
}
