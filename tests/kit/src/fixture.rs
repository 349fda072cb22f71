//! The photographs, packed once for all tests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result, bail};

use crate::{binary, repository};

/// The folder of photographs that are free to commit (see its MANIFEST.tsv).
pub fn photos() -> PathBuf {
    repository().join("tests/fixtures/photos")
}

/// The photographs as a packed data set; a folder path that is a valid data URL.
///
/// Packed on first use and kept beside the programs; packed again when r2octl changes. Test processes that come at the
/// same time wait for each other.
pub fn packed_photos() -> Result<PathBuf> {
    packed("photos", |_| Ok(None))
}

/// [`packed_photos`] with ground truth: of each image, the middle is an object.
pub fn packed_photos_with_objects() -> Result<PathBuf> {
    packed("objects", |folder| {
        let masks = folder.join("masks-unfinished");
        fs::create_dir_all(&masks)?;
        let manifest = fs::read_to_string(photos().join("MANIFEST.tsv"))?;
        for line in manifest.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let (width, height) = fields.last().and_then(|size| size.split_once('x')).context("no size")?;
            draw(&masks.join(fields[0]).with_extension("png"), width.parse()?, height.parse()?)?;
        }
        Ok(Some(masks))
    })
}

/// A mask whose middle ninth is object 1.
fn draw(file: &Path, width: u32, height: u32) -> Result<()> {
    let middle = |at: u32, of: u32| u8::from((of / 3..2 * of / 3).contains(&at));
    let labels = (0..width * height).map(|i| middle(i % width, width) * middle(i / width, height));
    let mut mask = png::Encoder::new(File::create(file)?, width, height);
    mask.set_color(png::ColorType::Grayscale);
    mask.write_header()?.write_image_data(&labels.collect::<Vec<_>>())?;
    Ok(())
}

/// The set of that name, packed with the masks that are made in a folder, if any.
fn packed(name: &str, masks: impl FnOnce(&Path) -> Result<Option<PathBuf>>) -> Result<PathBuf> {
    let program = binary("r2octl")?;
    let built = fs::metadata(&program)?.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
    let folder = program.with_file_name("r2o-fixtures");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the fixture folder")?;
    let packed = folder.join(format!("{name}-{built}"));
    if packed.is_dir() {
        return Ok(packed);
    }
    remove_others(&folder, &format!("-{built}"))?;
    let half = folder.join("set-unfinished");
    let mut command = Command::new(&program);
    command.args(["data", "pack"]).arg(photos()).arg("--out").arg(&half);
    if let Some(masks) = masks(&folder)? {
        command.arg("--masks").arg(masks);
    }
    let output = command.output().context("cannot run r2octl")?;
    if !output.status.success() {
        bail!("r2octl data pack failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    fs::rename(&half, &packed)?;
    Ok(packed)
}

/// Removes sets that an older r2octl packed, and half made ones.
fn remove_others(folder: &Path, ours: &str) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.to_string_lossy().ends_with(ours) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
