//! A parquet file's bytes as its reader wants them: in blocks, and of pages only those that fit into memory. What is hostile can
//! still say 2 GiB, the format's limit: the reader takes the last of sizes that a header repeats, and here the first is looked at.

use std::io::{self, Cursor, Read};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::place::{Stretch, Window};

/// Blocks that are read for labels and for page headers, and of pages one after another.
const BLOCKS: [u64; 2] = [64 << 10, 8 << 20];
/// Bytes of a page, as it is stored and unpacked: a few of the longest images.
const PAGE_MAX: u64 = 512 << 20;

fn general(text: String) -> ParquetError {
    ParquetError::General(text)
}

/// The whole file.
pub(super) struct Blocks {
    window: Mutex<Window>,
    bytes: u64,
}

impl Blocks {
    pub(super) fn new(file: Stretch, runtime: &Handle) -> Self {
        let bytes = file.bytes();
        Self { window: Mutex::new(Window::new(file, runtime.clone(), BLOCKS)), bytes }
    }

    fn at(&self, at: u64, wanted: u64) -> io::Result<Bytes> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).at(at, wanted)
    }
}

impl Length for Blocks {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Blocks {
    type T = Cursor<Bytes>;

    /// Only headers are read in this way: a few dozen bytes, unless they hold statistics of long values.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(Cursor::new(self.at(start, BLOCKS[0])?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if length as u64 > PAGE_MAX || start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(general(format!("{length} bytes at {start} of a file of {}", self.bytes)));
        }
        let mut bytes = self.at(start, length as u64)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// The same for the reader of pages, which makes as much room for one as its header says, whatever there is to unpack.
pub(super) struct Pages(pub(super) Blocks);

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Pages {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header, ParquetError> {
        Ok(Header { start, bytes: self.0.get_read(start)? })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// A page's header, looked at when its first byte is read: the reader of pages also asks for what it then does not read.
pub(super) struct Header {
    start: u64,
    bytes: Cursor<Bytes>,
}

impl Read for Header {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.bytes.position() == 0 {
            let start = self.start;
            match unpacked(self.bytes.get_ref()) {
                Some(0..=PAGE_MAX) => {}
                Some(bytes) => {
                    let reason = format!("its page at {start} is to have {bytes} bytes, at most {PAGE_MAX} may be");
                    return Err(io::Error::other(reason));
                }
                None => return Err(io::Error::other(format!("there is no page at {start}"))),
            }
        }
        self.bytes.read(out)
    }
}

/// What a page takes once it is unpacked: the second of three numbers that each header begins with (`PageHeader` of
/// parquet.thrift, in Thrift's compact protocol).
fn unpacked(header: &[u8]) -> Option<u64> {
    /// A 32-bit integer that is the next field.
    const NEXT: u8 = 0x15;
    let mut bytes = header.iter().copied();
    let mut sizes = [0_i64; 3];
    for size in &mut sizes {
        if bytes.next()? != NEXT {
            return None;
        }
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return None;
            }
        }
        // Zigzag: the sign is the lowest bit.
        *size = (value >> 1) as i64 ^ -((value & 1) as i64);
    }
    u64::try_from(sizes[1]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::place::Place;

    #[test]
    fn a_page_says_what_it_takes() {
        // A data page of 300 bytes, 200 of them stored, as pyarrow writes it.
        let header = [0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c];
        assert_eq!(unpacked(&header), Some(300));
        for wrong in [&header[..4], &[0x15, 0x00, 0x15, 0x01, 0x15, 0x00], &[0x25, 0x00, 0x15, 0x00], &[0xff; 20], &[]]
        {
            assert_eq!(unpacked(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_page_that_says_it_is_huge_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.parquet");
        // 16 bytes stored, 16 or 2 GiB less one byte unpacked.
        let small = [0x15, 0x00, 0x15, 0x20, 0x15, 0x20];
        let huge = [0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x20];
        std::fs::write(&path, [&small[..], &huge].concat()).unwrap();
        let file = runtime.block_on(Place::of(&path.display().to_string()).unwrap().whole()).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| {
                let pages = Pages(Blocks::new(file, runtime.handle()));
                let first_byte = |at| pages.get_read(at).unwrap().read(&mut [0]);
                assert_eq!(first_byte(0).unwrap(), 1);
                first_byte(small.len() as u64).unwrap_err().to_string()
            });
            let refused = read.join().unwrap();
            assert!(refused.contains("2147483647 bytes"), "{refused}");
        });
    }
}
