//! Markers of a JPEG (ITU-T T.81, annex B) up to its scan.

use super::VALUES;
use super::huffman::{Codes, ZIGZAG};
use super::inverse::Quantisation;

/// Components of a picture at most.
pub(super) const COMPONENTS: usize = 3;
/// Tables of a kind.
pub(super) const TABLES: usize = 4;

/// A component as frame and scan describe it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Component {
    id: u8,
    /// Blocks of an MCU.
    pub(super) across: usize,
    pub(super) down: usize,
    quantisation: usize,
    /// Tables of Huffman codes.
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// What the picture is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    components: [Component; COMPONENTS],
    count: usize,
}

impl Frame {
    /// One of grey, or luma and two of chroma, which have one block to an MCU.
    pub(super) fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// Pixels of luma for one of chroma, across and down.
    pub(super) fn sampling(&self) -> [usize; 2] {
        [self.components[0].across, self.components[0].down]
    }
}

/// All before the first Huffman code.
pub(super) struct Header<'a> {
    pub(super) frame: Frame,
    tables: [Option<Quantisation>; TABLES],
    /// MCUs from one restart marker to the next; 0: there are none.
    pub(super) restart: usize,
    /// From the first code on.
    pub(super) scan: &'a [u8],
}

const SOF0: u8 = 0xc0;
const DHT: u8 = 0xc4;
const SOI: u8 = 0xd8;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const APP0: u8 = 0xe0;
const APP14: u8 = 0xee;
const APP15: u8 = 0xef;
const COM: u8 = 0xfe;

impl<'a> Header<'a> {
    /// Reads the markers, and learns the codes. `None`: it is no picture of the usual kind.
    pub(super) fn read(bytes: &'a [u8], codes: &mut Codes) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xff, SOI])?;
        let (mut frame, mut restart, mut tables) = (None, 0, [const { None }; TABLES]);
        let (mut jfif, mut adobe) = (false, None);
        codes.forget();
        loop {
            let [0xff, marker, high, low, after @ ..] = rest else { return None };
            let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
            let (segment, after) = after.split_at_checked(length)?;
            rest = after;
            match *marker {
                SOF0 if frame.is_none() => frame = Some(Frame::read(segment)?),
                DHT => codes.learn(segment)?,
                DQT => quantisation(segment, &mut tables)?,
                DRI => restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?)),
                // Of its first version.
                APP0 if segment.starts_with(b"JFIF\0") && segment.get(5) != Some(&1) => return None,
                APP0 => jfif |= segment.starts_with(b"JFIF\0"),
                APP14 if segment.starts_with(b"Adobe") => adobe = Some(*segment.get(11)?),
                APP0..=APP15 | COM => {}
                SOS => {
                    let mut frame = frame?;
                    frame.scan(segment)?;
                    return frame.is_usual(jfif, adobe).then_some(Self { frame, tables, restart, scan: rest });
                }
                _ => return None,
            }
        }
    }

    /// What a component's coefficients are multiplied by, in the order of rows.
    pub(super) fn quantisation(&self, component: &Component) -> Option<&Quantisation> {
        self.tables.get(component.quantisation)?.as_ref()
    }
}

/// Tables of 8-bit numbers; those of 16 bits are unusual.
fn quantisation(mut segment: &[u8], tables: &mut [Option<Quantisation>; TABLES]) -> Option<()> {
    while let Some((&head, rest)) = segment.split_first() {
        let (values, rest) = rest.split_first_chunk::<VALUES>()?;
        segment = rest;
        let mut table = [0; VALUES];
        for (&value, &at) in values.iter().zip(&ZIGZAG) {
            table[usize::from(at)] = value;
        }
        *tables.get_mut(usize::from(head))? = Some(Quantisation::new(table));
    }
    Some(())
}

impl Frame {
    fn read(segment: &[u8]) -> Option<Self> {
        let ([bits, height1, height0, width1, width0, count], components) = segment.split_first_chunk()?;
        let mut frame = Self {
            width: usize::from(u16::from_be_bytes([*width1, *width0])),
            height: usize::from(u16::from_be_bytes([*height1, *height0])),
            count: usize::from(*count),
            ..Self::default()
        };
        let components = components.as_chunks::<3>();
        if *bits != 8 || frame.width == 0 || frame.height == 0 || frame.count > COMPONENTS || !components.1.is_empty() {
            return None;
        }
        if components.0.len() != frame.count {
            return None;
        }
        for (target, &[id, sampling, quantisation]) in frame.components.iter_mut().zip(components.0) {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            *target = Component { id, across, down, quantisation: usize::from(quantisation), dc: 0, ac: 0 };
        }
        Some(frame)
    }

    /// A scan of all components, in their order.
    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let (choices, last) = rest.as_chunks::<2>();
        // Of progressive pictures these would be others.
        let ([0, 63], choices) = choices.split_last()? else { return None };
        if usize::from(count) != self.count || choices.len() != self.count || last != [0] {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(choices) {
            if component.id != id {
                return None;
            }
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
        }
        Some(())
    }

    /// Whether colours and samplings are those that nearly all pictures have. libjpeg takes components for luma and chroma by a
    /// JFIF marker, else by Adobe's, else by their names.
    fn is_usual(&self, jfif: bool, adobe: Option<u8>) -> bool {
        let sampling = |component: &Component| [component.across, component.down];
        match self.components() {
            [grey] => sampling(grey) == [1, 1],
            [luma, blue, red] => {
                let ids = [luma.id, blue.id, red.id];
                let coloured = jfif || adobe.map_or(ids == [1, 2, 3], |transform| transform == 1);
                // A chroma of a few pixels is not smoothed by libjpeg.
                let smooth = luma.across == 1 || self.width.div_ceil(2) > 2;
                let luma_is = [[1, 1], [2, 1], [2, 2]].contains(&sampling(luma));
                coloured && smooth && luma_is && sampling(blue) == [1, 1] && sampling(red) == [1, 1]
            }
            _ => false,
        }
    }
}
