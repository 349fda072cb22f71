//! Packing COCO's annotations with their images.
#![allow(clippy::unwrap_used)]

#[path = "kit/photos.rs"]
mod photos;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use photos::photographs;
use r2o_data::inspect::inspect;
use r2o_data::pack::{PackError, PackOptions, pack};
use r2o_storage::shard::{read_set, read_shard};

/// A photograph of the fixtures, and its size.
fn photo(number: usize, to: &Path) -> (u32, u32) {
    fs::copy(&photographs()[number], to).unwrap();
    r2o_data::dimensions(&fs::read(to).unwrap()).unwrap()
}

fn grey(png: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut map = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut map).unwrap();
    let info = reader.info();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Eight));
    (info.width, info.height, map)
}

#[test]
fn objects_become_the_masks_of_their_images() {
    let folder = tempfile::tempdir().unwrap();
    let (images, out) = (folder.path().join("images"), folder.path().join("set"));
    fs::create_dir_all(images.join("val")).unwrap();
    let sizes: Vec<_> = (0..4).map(|n| photo(n, &images.join(format!("val/{n}.jpg")))).collect();
    let image = |n: usize| serde_json::json!({"id": 10 + n, "file_name": format!("val/{n}.jpg"), "width": sizes[n].0, "height": sizes[n].1, "license": 1});
    let (w, h) = sizes[0];
    let square = |x: u32, y: u32, side: u32| serde_json::json!([[x, y, x + side, y, x + side, y + side, x, y + side]]);
    let instances = serde_json::json!({
        "info": {},
        "images": [image(3), image(1), image(0), image(2), {"id": 99, "file_name": "val/9.jpg", "width": 5, "height": 5}],
        "annotations": [
            {"id": 7, "image_id": 10, "iscrowd": 0, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": square(10, 10, 20)},
            {"id": 2, "image_id": 10, "iscrowd": 0, "segmentation": square(20, 20, 5)},
            // The first two columns: a crowd.
            {"id": 3, "image_id": 10, "iscrowd": 1, "segmentation": {"counts": [0, 2 * h, w * h - 2 * h], "size": [h, w]}},
            {"id": 4, "image_id": 12, "iscrowd": 0, "segmentation": {"counts": "\u{1}", "size": [sizes[2].1, sizes[2].0]}},
            {"id": 5, "image_id": 13, "iscrowd": 0, "segmentation": {"counts": "04", "size": [1, 4]}},
        ],
        "categories": [{"id": 1, "name": "cat"}],
    });
    let source = folder.path().join("instances_val.json");
    fs::write(&source, instances.to_string()).unwrap();
    let text = |path: &Path| path.display().to_string();
    let options = PackOptions {
        images: Some(text(&images)),
        segments: 10,
        slic_size: 32,
        ..PackOptions::new(text(&source), text(&out))
    };
    let summary = pack(&options, &()).unwrap();
    let skipped: Vec<_> = summary.skipped.iter().map(ToString::to_string).collect();
    assert_eq!((summary.samples, skipped.len()), (2, 3), "{skipped:?}");
    assert!(skipped[0].starts_with("val/9.jpg: no such file in"), "{skipped:?}");
    assert!(skipped[1].starts_with("val/2.jpg: annotation 4: ") && skipped[1].contains("run lengths"), "{skipped:?}");
    assert!(skipped[2].starts_with("val/3.jpg: annotation 5: its runs are of 4 x 1 pixels"), "{skipped:?}");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(inspect(&text(&out))).unwrap();
    assert_eq!((report.masks, report.bad), (1, vec![]));
    let store = r2o_storage::open(&text(&out)).unwrap();
    let entry = runtime.block_on(read_set(&store)).unwrap().shards.remove(0);
    let member = runtime.block_on(read_shard(&store, &entry)).unwrap().samples[0].mask.unwrap();
    let tar = fs::read(out.join(&entry.file)).unwrap();
    let (width, height, map) = grey(&tar[member.offset as usize..(member.offset + member.bytes) as usize]);
    assert_eq!((width, height), (w, h));
    let at = |x: u32, y: u32| map[(y * w + x) as usize];
    assert_eq!([at(12, 12), at(22, 22), at(1, 5), at(0, h - 1), at(2, 5), at(40, 40)], [1, 2, 255, 255, 0, 0]);

    // Other annotations are another set.
    fs::write(&source, instances.to_string().replace("[[10,10,", "[[11,10,")).unwrap();
    assert!(matches!(pack(&options, &()), Err(PackError::OtherSet { .. })));
    let alone = PackOptions { images: None, ..options.clone() };
    let error = pack(&alone, &()).unwrap_err().to_string();
    assert!(error.contains("--images"), "{error}");
    let tree = PackOptions { source: text(&images), ..options };
    let error = pack(&tree, &()).unwrap_err().to_string();
    assert!(error.contains("--images"), "{error}");
}
