//! Huffman codes of a baseline JPEG (ITU-T T.81, annexes C and F): a coefficient is one look into a table.

use super::header::{Component, TABLES};
use super::{Group, LANES, VALUES};

/// Places of the coefficients in their order.
pub(super) const ZIGZAG: [u8; VALUES] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Bits that are looked up together.
const LOOK: u32 = 10;
/// The longest code.
const LONGEST: usize = 16;
/// In an entry: only the code is in the bits looked up; the value's own bits follow it.
const OPEN: u32 = 0x80;
/// A run that ends the block.
const END: u32 = 0x7f;

/// One table of codes.
///
/// An entry has a value's 16 bits, then 8 of the zeros before it, then 8 of the length; if the value is open, its own length
/// stands in its place. 0: the code is longer than what is looked up.
struct Table {
    defined: bool,
    /// What it was made from: 16 counts, then symbols.
    definition: Vec<u8>,
    entries: Box<[u32; 1 << LOOK]>,
    /// For each length: the first code that is longer, in 16 bits, and what leads from a code to its symbol.
    limits: [u32; LONGEST + 1],
    offsets: [i32; LONGEST + 1],
}

impl Default for Table {
    fn default() -> Self {
        Self {
            defined: false,
            definition: Vec::new(),
            entries: Box::new([0; 1 << LOOK]),
            limits: [0; LONGEST + 1],
            offsets: [0; LONGEST + 1],
        }
    }
}

/// Value of `length` bits (T.81, table F.1).
#[inline(always)]
fn extended(bits: u32, length: u32) -> i32 {
    let half = (1 << length) >> 1;
    if bits < half { bits as i32 - (1 << length) + 1 } else { bits as i32 }
}

impl Table {
    /// Makes the table that a definition is about: most files have the same.
    fn define(&mut self, definition: &[u8], dc: bool) -> Option<()> {
        if self.definition != definition {
            self.definition.clear();
            self.build(definition, dc)?;
            self.definition.extend_from_slice(definition);
        }
        self.defined = true;
        Some(())
    }

    fn build(&mut self, definition: &[u8], dc: bool) -> Option<()> {
        let (counts, symbols) = definition.split_first_chunk::<LONGEST>()?;
        self.entries.fill(0);
        let (mut code, mut next) = (0_u32, 0_usize);
        for (length, &count) in (1_u32..).zip(counts) {
            let count = usize::from(count);
            self.offsets[length as usize] = next as i32 - code as i32;
            for &symbol in symbols.get(next..next + count)? {
                // DC has no runs, and no longer values than AC.
                if code >> length != 0 || (dc && symbol > 15) {
                    return None;
                }
                if let Some(rest) = LOOK.checked_sub(length) {
                    let first = (code << rest) as usize;
                    for (bits, entry) in (0_u32..).zip(&mut self.entries[first..first + (1 << rest)]) {
                        *entry = entry_of(symbol, length, bits, rest, dc);
                    }
                }
                code += 1;
            }
            next += count;
            self.limits[length as usize] = code << (LONGEST as u32 - length);
            code <<= 1;
        }
        (next == symbols.len()).then_some(())
    }
}

/// The entry of a code of `length` that `rest` more bits follow.
fn entry_of(symbol: u8, length: u32, bits: u32, rest: u32, dc: bool) -> u32 {
    let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    match rest.checked_sub(size) {
        _ if size == 0 && run < 15 && !dc => END << 8 | length,
        Some(unused) => {
            let value = if size == 0 { 0 } else { extended(bits >> unused, size) };
            u32::from(value as i16 as u16) << 16 | run << 8 | (length + size)
        }
        None => size << 16 | run << 8 | OPEN | length,
    }
}

/// All tables that a picture has defined.
#[derive(Default)]
pub(super) struct Codes {
    dc: [Table; TABLES],
    ac: [Table; TABLES],
}

/// A component's tables.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    dc: &'a Table,
    ac: &'a Table,
}

impl Codes {
    /// Nothing is defined any more.
    pub(super) fn forget(&mut self) {
        self.dc.iter_mut().chain(&mut self.ac).for_each(|table| table.defined = false);
    }

    /// Takes a segment's definitions.
    pub(super) fn learn(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let symbols = rest.get(..LONGEST)?.iter().map(|&count| usize::from(count)).sum::<usize>();
            let (definition, rest) = rest.split_at_checked(LONGEST + symbols)?;
            segment = rest;
            let dc = head >> 4 == 0;
            let tables = if dc { &mut self.dc } else { &mut self.ac };
            if head >> 4 > 1 {
                return None;
            }
            tables.get_mut(usize::from(head & 15))?.define(definition, dc)?;
        }
        Some(())
    }

    /// A component's tables, if they are defined.
    #[inline(always)]
    pub(super) fn of(&self, component: &Component) -> Option<Tables<'_>> {
        let (dc, ac) = (self.dc.get(component.dc)?, self.ac.get(component.ac)?);
        (dc.defined && ac.defined).then_some(Tables { dc, ac })
    }
}

/// Zeros behind the codes, so that whole words can be read.
const PADDING: usize = 16;

/// A scan's codes without the zeros that follow each 0xff, one interval between restart markers after another.
#[derive(Default)]
pub(super) struct Scan {
    bytes: Vec<u8>,
    /// Where intervals end.
    ends: Vec<usize>,
}

impl Scan {
    /// Takes all up to the end of the image, which has to follow the scan.
    pub(super) fn read(&mut self, mut scan: &[u8]) -> bool {
        self.bytes.clear();
        self.ends.clear();
        loop {
            let Some(at) = memchr::memchr(0xff, scan) else { return false };
            let Some(&marker) = scan.get(at + 1) else { return false };
            match marker {
                0 => self.bytes.extend_from_slice(&scan[..=at]),
                0xd0..=0xd7 if usize::from(marker & 7) == self.ends.len() % 8 => {
                    self.bytes.extend_from_slice(&scan[..at]);
                    self.ends.push(self.bytes.len());
                }
                0xd9 => {
                    self.bytes.extend_from_slice(&scan[..at]);
                    self.ends.push(self.bytes.len());
                    self.bytes.resize(self.bytes.len() + PADDING, 0);
                    return true;
                }
                _ => return false,
            }
            scan = &scan[at + 2..];
        }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.bytes, ends: &self.ends, at: 0, bits: 0, held: 0 }
    }
}

/// A block that is being filled.
struct Block<'a> {
    group: &'a mut Group,
    lane: usize,
    /// The next coefficient.
    at: u32,
}

impl Block<'_> {
    /// Puts a value behind zeros. `Some`: the block ends, as it should or not.
    #[inline(always)]
    fn put(&mut self, (run, value): (u32, i32)) -> Option<Option<()>> {
        self.at += run;
        if self.at >= VALUES as u32 {
            return Some((run == END).then_some(()));
        }
        self.group[usize::from(ZIGZAG[self.at as usize % VALUES]) % VALUES][self.lane] = value as i16;
        self.at += 1;
        (self.at == VALUES as u32).then_some(Some(()))
    }
}

/// Whether an entry has the value of its code.
#[inline(always)]
fn is_whole(entry: u32) -> bool {
    (entry as u8 as i8) > 0
}

/// Reads one code after another.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Ends of this interval and of those that follow.
    ends: &'a [usize],
    /// The next byte to take.
    at: usize,
    /// Bits that were taken, the next one highest.
    bits: u64,
    held: u32,
}

impl Reader<'_> {
    /// Takes bits until there are 56 or more.
    #[inline(always)]
    fn fill(&mut self) {
        if let Some(next) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            self.bits |= u64::from_be_bytes(*next) >> self.held;
        }
        // What is taken twice is the same.
        self.at += ((63 - self.held) >> 3) as usize;
        self.held |= 56;
    }

    #[inline(always)]
    fn drop(&mut self, bits: u32) {
        self.bits <<= bits;
        self.held -= bits;
    }

    #[inline(always)]
    fn take(&mut self, bits: u32) -> u32 {
        // Two shifts, since one by 64 is none.
        let value = (self.bits >> 1 >> (63 - bits)) as u32;
        self.drop(bits);
        value
    }

    /// The entry of the next code.
    #[inline(always)]
    fn look(&self, table: &Table) -> u32 {
        table.entries[(self.bits >> (64 - LOOK)) as usize]
    }

    /// Zeros before a value, and the value, by the entry of its code. There must be 31 bits.
    #[inline(always)]
    fn value(&mut self, entry: u32, table: &Table) -> Option<(u32, i32)> {
        if is_whole(entry) { Some(self.whole(entry)) } else { self.open(entry, table) }
    }

    /// The same where it was looked up with its code: at most [`LOOK`] bits.
    #[inline(always)]
    fn whole(&mut self, entry: u32) -> (u32, i32) {
        self.drop(entry & 0x7f);
        (entry >> 8 & 0xff, entry as i32 >> 16)
    }

    /// The same where a look into the table is not enough.
    #[inline(always)]
    fn open(&mut self, entry: u32, table: &Table) -> Option<(u32, i32)> {
        if entry != 0 {
            self.drop(entry & 0x7f);
            let size = entry >> 16;
            return Some((entry >> 8 & 0xff, extended(self.take(size), size)));
        }
        let code = (self.bits >> 48) as u32;
        let length = (LOOK as usize + 1..=LONGEST).find(|&length| code < table.limits[length])?;
        let at = (code >> (LONGEST - length)) as i32 + table.offsets[length];
        let symbol = *table.definition.get(LONGEST + usize::try_from(at).ok()?)?;
        self.drop(length as u32);
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        match size {
            0 if run < 15 => Some((END, 0)),
            0 => Some((run, 0)),
            size => Some((run, extended(self.take(size), size))),
        }
    }

    /// Decodes a block to its place in a group of zeros.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        tables: Tables<'_>,
        prediction: &mut i32,
        group: &mut Group,
        lane: usize,
    ) -> Option<()> {
        let mut block = Block { group, lane: lane % LANES, at: 1 };
        self.fill();
        let (run, difference) = self.value(self.look(tables.dc), tables.dc)?;
        // A DC table has no runs but that of a long code for 0.
        if run != 0 && run != END {
            return None;
        }
        *prediction = prediction.wrapping_add(difference);
        block.group[0][block.lane] = i16::try_from(*prediction).ok()?;
        loop {
            self.fill();
            // Of the 56 bits two whole values take 20 at most, and another one 31.
            for _ in 0..2 {
                let entry = self.look(tables.ac);
                if !is_whole(entry) {
                    break;
                }
                if let Some(end) = block.put(self.whole(entry)) {
                    return end;
                }
            }
            let entry = self.look(tables.ac);
            let value = self.value(entry, tables.ac)?;
            if let Some(end) = block.put(value) {
                return end;
            }
        }
    }

    /// Bits that were used.
    fn used(&self) -> usize {
        8 * self.at - self.held as usize
    }

    /// Whether more was read than this interval has.
    #[inline(always)]
    pub(super) fn beyond(&self) -> bool {
        self.ends.first().is_none_or(|end| self.used() > 8 * end)
    }

    /// Whether the interval was read to its last byte.
    fn exhausted(&self) -> bool {
        self.ends.first().is_some_and(|end| self.used().div_ceil(8) == *end)
    }

    /// Goes on behind a restart marker.
    #[inline(always)]
    pub(super) fn restart(&mut self) -> Option<()> {
        let (end, others) = self.ends.split_first()?;
        if !self.exhausted() || others.is_empty() {
            return None;
        }
        (self.at, self.bits, self.held, self.ends) = (*end, 0, 0, others);
        Some(())
    }

    /// Whether all was read.
    pub(super) fn ended(&self) -> bool {
        self.ends.len() == 1 && self.exhausted()
    }
}
