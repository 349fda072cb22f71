"""Writes tests/fixtures/formats: one small picture in the formats and colours that image files come in, and beside each what
Pillow's `convert("RGB")` makes of it (NAME.rgb.png). Needs Pillow and numpy; run from the repository's root."""

from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path("tests/fixtures/formats")
PHOTO = "tests/fixtures/photos/animal_explore_farm_animals_cow.jpg"


def inks(picture):
    """Four inks with black taken out, so that all of them matter."""
    rgb = np.asarray(picture).astype(int)
    black = 255 - rgb.max(2)
    cmy = 255 - rgb - black[..., None]
    return Image.fromarray(np.dstack([cmy, black]).astype(np.uint8), "CMYK")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    picture = Image.open(PHOTO).convert("RGB").resize((67, 51), Image.BICUBIC)
    alpha = Image.fromarray(np.linspace(0, 255, 67 * 51).astype(np.uint8).reshape(51, 67))
    faded = picture.copy()
    faded.putalpha(alpha)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "baseline.jpg": (picture, {"quality": 90}),
        "full-chroma.jpg": (picture, {"quality": 90, "subsampling": 0}),
        "progressive.jpg": (picture, {"quality": 90, "progressive": True}),
        "restarts.jpg": (picture, {"quality": 90, "restart_marker_blocks": 4}),
        "grey.jpg": (picture.convert("L"), {"quality": 90}),
        "cmyk.jpg": (inks(picture), {"quality": 95}),
        "turned.jpg": (picture, {"quality": 90, "exif": turned}),
        "plain.png": (picture, {}),
        "named-wrongly.jpg": (picture, {"format": "PNG"}),
        "palette.png": (picture.quantize(64), {}),
        "palette-clear.png": (picture.quantize(64), {"transparency": 3}),
        "alpha.png": (faded, {}),
        "grey.png": (picture.convert("L"), {}),
        "grey-alpha.png": (faded.convert("LA"), {}),
        "bits.png": (picture.convert("1"), {}),
        "lossless.webp": (picture, {"lossless": True}),
        "alpha.webp": (faded, {"lossless": True, "exact": True}),
    }
    for name, (image, options) in files.items():
        image.save(OUT / name, **options)
        Image.open(OUT / name).convert("RGB").save(OUT / f"{name}.rgb.png", optimize=True)


if __name__ == "__main__":
    main()
