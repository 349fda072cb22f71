//! The report of a synthetic run, rendered from memory and from a store; odd runs do not break it. The page and the figure
//! are left under the target folder's `tmp` for people to look at.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use r2o_report::{FigureOptions, ReportInput, collect, figure_png, render};
use r2o_storage::checkpoint::{Manifest, TensorEntry, commit, write_object};
use r2o_storage::gallery::{GalleryImage, GalleryPage, write_page};
use r2o_storage::history::{StepRecord, append_segment};
use r2o_storage::run::{EventRecord, write_events, write_job};
use r2o_storage::{Store, open};
use serde_json::json;

const SIDE: usize = 96;
const MASK: usize = 24;

fn png(width: usize, colour: png::ColorType, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let height = data.len() / width / colour.samples();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(colour);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

/// Two discs before a sky and a ground, with some texture.
fn scene(image: usize, x: f64, y: f64) -> usize {
    let shift = image as f64 * 0.07;
    let inside = |cx: f64, cy: f64, r: f64| (x - cx).hypot(y - cy) < r;
    match () {
        () if inside(0.3 + shift, 0.55, 0.2) => 0,
        () if inside(0.75 - shift, 0.4, 0.14) => 1,
        () if y < 0.6 => 2,
        () => 3,
    }
}

fn photo(image: usize, zoom: f64) -> Vec<u8> {
    let mut data = Vec::new();
    for i in 0..SIDE * SIDE {
        let (x, y) = ((i % SIDE) as f64 / SIDE as f64, (i / SIDE) as f64 / SIDE as f64);
        let base = [[200.0, 70.0, 50.0], [250.0, 210.0, 80.0], [120.0, 170.0, 230.0], [80.0, 130.0, 60.0]];
        let texture = ((x * 60.0).sin() * (y * 47.0).cos() + y) * 18.0;
        let c = base[scene(image, 0.5 + (x - 0.5) * zoom, 0.5 + (y - 0.5) * zoom)];
        data.extend(c.map(|v| (v + texture) as u8));
    }
    png(SIDE, png::ColorType::Rgb, &data)
}

/// Labels of a grid of cells, as a prior; merged towards the scene's parts as `k` falls. Numbered anew on every page.
fn labels(image: usize, side: usize, k: usize, page: usize) -> Vec<u8> {
    let label = |i: usize| {
        let (x, y) = ((i % side) as f64 / side as f64, (i / side) as f64 / side as f64);
        let cell = (y * 7.0) as usize * 7 + (x * 7.0) as usize;
        let part = scene(image, x, y);
        let pieces = k.div_ceil(4);
        ((part * pieces + cell % pieces) * 5 + page) % k
    };
    (0..side * side).map(|i| label(i) as u8).collect()
}

fn pages() -> Vec<GalleryPage> {
    let ks = [32, 31, 28, 24, 19, 13, 8, 4];
    let image = |page: usize, k: usize, n: usize| {
        let first = page == 0;
        let only_first = |png: Vec<u8>| if first { png } else { Vec::new() };
        let mask = labels(n, MASK, k, page);
        let count = mask.iter().collect::<std::collections::BTreeSet<_>>().len() as u32;
        GalleryImage {
            sample: n as u64 * 17,
            key: format!("holiday/picture_{n:03}"),
            raw_png: only_first(photo(n, 1.0)).into(),
            view1_png: only_first(photo(n, 0.6)).into(),
            view2_png: only_first(photo(n, 0.8)).into(),
            prior_png: only_first(png(SIDE, png::ColorType::Grayscale, &labels(n, SIDE, 100, 0))).into(),
            mask_png: png(MASK, png::ColorType::Grayscale, &mask).into(),
            mask_count: count,
        }
    };
    let page = |(page, k): (usize, &usize)| GalleryPage {
        epoch: page as u64,
        step: page as u64 * 40,
        k: *k as u32,
        average_best_overlap: Some(0.2 + 0.05 * page as f64),
        prior_average_best_overlap: Some(0.123_4),
        images: (0..4).map(|n| image(page, *k, n)).collect(),
    };
    ks.iter().enumerate().map(page).collect()
}

fn records() -> Vec<StepRecord> {
    let record = |step: u64| {
        let x = step as f64 / 280.0;
        let noise = ((step * 7919) % 101) as f64 / 101.0;
        let timings = [
            ("forward", 0.4),
            ("backward", 0.7),
            ("masks", 0.2 * (1.0 - x)),
            ("all_reduce", 0.08),
            ("data_wait", 0.02),
        ];
        StepRecord {
            step,
            epoch: step / 40,
            generation: 1 + step / 150,
            k: (32.0 - 28.0 * x) as u32,
            tau: 1.0 - 0.01 * ((std::f64::consts::PI * x).cos() + 1.0) / 2.0,
            learning_rate: 0.2 * (step as f64 / 12.0).min(1.0) * ((std::f64::consts::PI * x).cos() + 1.0),
            loss: 1.2 * (-2.0 * x).exp() + 0.5 + 0.2 * noise,
            gradient_norm: 1.0 + noise,
            valid_regions: 20.0 - 16.0 * x,
            images: 64,
            seconds: 1.5 + 0.3 * noise,
            timings: timings.into_iter().map(|(name, s)| (name.to_owned(), s)).collect(),
            lanes: Vec::new(),
        }
    };
    (0..280).map(record).collect()
}

fn job() -> serde_json::Value {
    json!({"apiVersion": "r2o.dev/v1", "kind": "TrainJob", "metadata": {"name": "synthetic"},
        "spec": {"data": {"url": "file:///data", "imageSize": 96}, "batch": {"lanes": 4, "samplesPerLane": 16},
            "model": {"backbone": "resnet18"}}})
}

fn events() -> Vec<EventRecord> {
    let event = |unix_ms, reason: &str, message: &str, warning| EventRecord {
        unix_ms,
        reason: reason.into(),
        message: message.into(),
        warning,
    };
    vec![
        event(1_700_000_000_000, "Submitted", "queued behind no other job", false),
        event(1_700_000_003_000, "GenerationOpened", "generation 1 with 2 workers", false),
        event(1_700_000_203_000, "WorkerLost", "worker <b> broke its stream & left", true),
    ]
}

async fn stored() -> Store {
    let store = open("memory:///").unwrap();
    write_job(&store, &job()).await.unwrap();
    write_events(&store, &events()).await.unwrap();
    append_segment(&store, 1, &records()[..150]).await.unwrap();
    append_segment(&store, 2, &records()[150..]).await.unwrap();
    for page in pages() {
        write_page(&store, &page).await.unwrap();
    }
    for step in [140, 280] {
        let id = write_object(&store, vec![0; 1 << 20]).await.unwrap();
        let tensor = TensorEntry {
            name: "online.backbone.conv1.weight".into(),
            dtype: "F32".into(),
            shape: vec![1 << 18],
            blake3: id.to_string(),
            bytes: 1 << 20,
        };
        let manifest = Manifest {
            format: Manifest::FORMAT,
            job: "synthetic".into(),
            step,
            epoch: step / 40,
            generation: 1,
            spec: job(),
            tensors: vec![tensor],
            created_unix_ms: 0,
            versions: BTreeMap::from([("r2o-worker".into(), "0.1.0".into()), ("torch".into(), "2.11.0".into())]),
        };
        commit(&store, &manifest).await.unwrap();
    }
    store.put("manifests/000000000300.json", "{}").await.unwrap();
    store
}

fn keep(name: &str, bytes: &[u8]) {
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), bytes).unwrap();
}

#[tokio::test]
async fn a_run_in_a_store_becomes_one_self_contained_page() {
    let input = collect(&stored().await).await.unwrap();
    let page = render(&input).unwrap();
    keep("report.html", page.as_bytes());
    assert!(!page.contains("src=\"http") && !page.contains("url(http") && !page.contains("<link"), "no network");
    assert!(!page.contains("<script"));
    for text in [
        "synthetic",
        "resnet18",
        "32 → 4",
        "Masks over the epochs",
        "Where the time goes",
        "torch",
        "2.11.0",
        "ABO 0.550",
        "ABO 0.123",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("worker &lt;b&gt; broke its stream &amp; left"), "text is escaped");
    assert!(page.contains("000000000300.json is damaged"));
    assert_eq!(page.matches("class=\"mask\"").count(), 7 * 4);
    assert_eq!(page.matches("<svg").count(), 8);
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
}

#[tokio::test]
async fn an_empty_folder_is_no_run() {
    let error = collect(&open("memory:///").unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("memory://") && error.contains("checkpoint URL"), "{error}");
}

#[test]
fn the_figure_has_a_row_per_image() {
    let figure = figure_png(&pages(), &FigureOptions { images: 3, epochs: 5, tile: 100 }).unwrap().unwrap();
    keep("figure.png", &figure);
    let reader = png::Decoder::new(std::io::Cursor::new(&figure)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (8 + 7 * 108, 22 + 3 * 122 + 8));
    assert!(figure_png(&[], &FigureOptions::default()).unwrap().is_none());
}

#[test]
fn odd_runs_do_not_break_the_page() {
    render(&ReportInput::default()).unwrap();
    let mut one = records();
    one.truncate(1);
    one[0].loss = f64::NAN;
    one[0].seconds = 0.0;
    let page = render(&ReportInput { records: one, ..ReportInput::default() }).unwrap();
    assert!(page.contains("not a number"));
    // The first page lost one image, a later one has more, and labels go up to 255.
    let mut odd = pages();
    odd[3].images.remove(0);
    odd[5].images.push(GalleryImage { sample: 999, ..GalleryImage::default() });
    let many: Vec<u8> = (0..MASK * MASK).map(|i| (i % 256) as u8).collect();
    odd[2].images[1].mask_png = png(MASK, png::ColorType::Grayscale, &many).into();
    render(&ReportInput { pages: odd, ..ReportInput::default() }).unwrap();
}

#[test]
fn a_broken_picture_is_named() {
    let mut broken = pages();
    broken[2].images[1].mask_png = b"not a png".to_vec().into();
    let error = render(&ReportInput { pages: broken, ..ReportInput::default() }).unwrap_err().to_string();
    assert!(error.contains("holiday/picture_001 mask of epoch 2"), "{error}");
}
