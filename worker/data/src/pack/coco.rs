//! COCO's `instances_*.json` and a folder of images: each object's mask becomes a value of the image's ground-truth mask.
//!
//! The mask is an 8-bit grey PNG of the image's size. 0: no object. 1 to 254: the objects, by falling size; where they overlap
//! the smaller lies above, so that what stands before something is seen. 255: neither, as in Pascal VOC: crowds, below all
//! objects, and the smallest objects of an image that has more than 254.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::PackError;
use super::place::{Found, Place, Stretch};
use super::plan::Skipped;
use super::raster::Runs;
use super::source::{Item, Listed, Mask, Origin};

/// The value of what is neither an object nor background.
const NEITHER: u8 = 255;
/// Values of objects.
const OBJECTS: usize = 254;

#[derive(Deserialize)]
struct Instances {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    #[serde(default)]
    iscrowd: u8,
    segmentation: Option<Shape>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Shape {
    Polygons(Vec<Vec<f64>>),
    Text { counts: String, size: [u32; 2] },
    Runs { counts: Vec<u32>, size: [u32; 2] },
}

/// An image's objects.
#[derive(Debug)]
pub(super) struct Drawing {
    width: u32,
    height: u32,
    objects: Vec<Object>,
}

#[derive(Debug)]
struct Object {
    id: u64,
    crowd: bool,
    shape: Shape,
}

/// The images of the file that are in the folder, by name.
pub(super) async fn list(file: Found, folder: &Place) -> Result<Listed, PackError> {
    let text = file.whole.read().await?;
    let wrong = |reason: String| PackError::List { path: file.whole.place.shown(), line: 0, reason };
    let instances: Instances =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("not COCO's instances: {e}")))?;
    let files: HashMap<String, Stretch> = folder.files().await?.into_iter().map(|f| (f.name, f.whole)).collect();
    let mut objects: BTreeMap<u64, Vec<Object>> = BTreeMap::new();
    for Annotation { id, image_id, iscrowd, segmentation } in instances.annotations {
        if let Some(shape) = segmentation {
            objects.entry(image_id).or_default().push(Object { id, crowd: iscrowd != 0, shape });
        }
    }
    let mut listed = Listed { annotations: Some(blake3::hash(&text)), ..Listed::default() };
    let mut images = instances.images;
    images.sort_by(|a, b| a.file_name.split('/').cmp(b.file_name.split('/')));
    for Image { id, file_name, width, height } in images {
        let Some(image) = files.get(&file_name).cloned() else {
            listed.skipped.push(Skipped { reason: format!("no such file in {}", folder.shown()), name: file_name });
            continue;
        };
        let drawing = objects.remove(&id).map(|objects| Mask::Drawn(Arc::new(Drawing { width, height, objects })));
        listed.items.push(Item { name: file_name, image: Origin::Stretch(image), class: None, mask: drawing });
    }
    Ok(listed)
}

impl Drawing {
    /// The mask of an image of this size.
    pub(super) fn draw(&self, width: u32, height: u32) -> Result<Vec<u8>, String> {
        if (width, height) != (self.width, self.height) {
            let Self { width: w, height: h, .. } = self;
            return Err(format!("{width} x {height} pixels, its annotations are of {w} x {h}"));
        }
        let mut drawn = Vec::new();
        for object in &self.objects {
            let named = |reason| format!("annotation {}: {reason}", object.id);
            let parts = object.shape.parts(width, height).map_err(named)?;
            let area: u64 = parts.iter().map(Runs::area).sum();
            drawn.push((!object.crowd, std::cmp::Reverse(area), object.id, parts));
        }
        drawn.sort_by_key(|(object, area, id, _)| (*object, *area, *id));
        let mut map = vec![0; width as usize * height as usize];
        let mut next = 1;
        for (object, _, id, parts) in drawn {
            let value = if object && next <= OBJECTS { next as u8 } else { NEITHER };
            next += usize::from(object);
            for part in parts {
                part.paint(&mut map, width, value).map_err(|reason| format!("annotation {id}: {reason}"))?;
            }
        }
        encoded(&map, width, height).map_err(|e| format!("its mask cannot be written: {e}"))
    }
}

impl Shape {
    fn parts(&self, width: u32, height: u32) -> Result<Vec<Runs>, String> {
        let sized = |size: &[u32; 2]| {
            let [h, w] = *size;
            if (w, h) == (width, height) { Ok(()) } else { Err(format!("its runs are of {w} x {h} pixels")) }
        };
        match self {
            Self::Polygons(polygons) => polygons.iter().map(|xy| Runs::of_polygon(xy, width, height)).collect(),
            Self::Text { counts, size } => sized(size).and_then(|()| Ok(vec![Runs::of_text(counts)?])),
            Self::Runs { counts, size } => sized(size).map(|()| vec![Runs(counts.clone())]),
        }
    }
}

fn encoded(map: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header()?.write_image_data(map)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(x: f64, y: f64, side: f64) -> Shape {
        Shape::Polygons(vec![vec![x, y, x + side, y, x + side, y + side, x, y + side]])
    }

    fn values(objects: Vec<Object>) -> Vec<u8> {
        let drawing = Drawing { width: 40, height: 30, objects };
        let png = drawing.draw(40, 30).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut map = vec![0; 1200];
        reader.next_frame(&mut map).unwrap();
        map
    }

    #[test]
    fn smaller_objects_lie_above_larger_ones_and_crowds_below_all() {
        let object = |id, crowd, shape| Object { id, crowd, shape };
        let map = values(vec![
            object(1, false, square(12.0, 12.0, 4.0)),
            object(2, true, square(0.0, 0.0, 30.0)),
            object(3, false, square(10.0, 10.0, 10.0)),
        ]);
        let at = |x: usize, y: usize| map[y * 40 + x];
        assert_eq!([at(13, 13), at(18, 18), at(2, 2), at(39, 29)], [2, 1, NEITHER, 0]);
    }

    #[test]
    fn the_smallest_of_too_many_objects_are_none() {
        let pixel = |id: u64| square((id % 40) as f64, (id / 40) as f64, 1.0);
        let objects = (0..300).map(|id| Object { id, crowd: false, shape: pixel(id) });
        let map = values(objects.collect());
        assert_eq!(map[0], 1);
        assert_eq!((map[6 * 40 + 13], map[6 * 40 + 14], map[7 * 40 + 19]), (254, NEITHER, NEITHER));
    }

    #[test]
    fn what_does_not_fit_the_image_is_named() {
        let shape = Shape::Runs { counts: vec![0, 10], size: [30, 41] };
        let drawing = Drawing { width: 40, height: 30, objects: vec![Object { id: 77, crowd: false, shape }] };
        let text = drawing.draw(40, 30).unwrap_err();
        assert!(text.contains("annotation 77") && text.contains("41 x 30"), "{text}");
        assert!(drawing.draw(30, 40).unwrap_err().contains("its annotations are of 40 x 30"));
    }
}
