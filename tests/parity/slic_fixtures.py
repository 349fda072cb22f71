"""Writes tests/fixtures/slic: pictures of 224 x 224, scikit-image's label maps of them, and for composed scenes the exact
masks. Needs scikit-image 0.26, Pillow and numpy; run from the repository's root."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage.segmentation import slic

SIDE = 224
PHOTOS = Path("tests/fixtures/photos")
OUT = Path("tests/fixtures/slic")
NAMES = ["animal_explore_farm_animals_cow", "fish_categorization_fish9", "renewable_categorization_dam1"]


def resized(path):
    return Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)


def scene(index, names):
    """A photograph with shapes cut out of other photographs, and the mask of the shapes."""
    draw = np.random.default_rng(index)
    picture, mask = resized(names[0]), Image.new("L", (SIDE, SIDE), 0)
    for label, name in enumerate(names[1:], start=1):
        shape = Image.new("L", (SIDE, SIDE), 0)
        x, y = draw.integers(20, 120, 2)
        w, h = draw.integers(50, 90, 2)
        box = [int(x), int(y), int(x + w), int(y + h)]
        pen = ImageDraw.Draw(shape)
        pen.ellipse(box, fill=255) if label % 2 else pen.polygon([(box[0], box[3]), (box[2], box[3]), (box[0] + int(w) // 2, box[1])], fill=255)
        picture.paste(resized(name), (0, 0), shape)
        mask.paste(label, (0, 0, SIDE, SIDE), shape)
    return picture, mask


def labels(picture):
    found = slic(np.asarray(picture), n_segments=100, compactness=10, start_label=0, channel_axis=-1)
    return Image.fromarray(found.astype(np.uint8))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        picture = resized(PHOTOS / f"{name}.jpg")
        picture.save(OUT / f"{name}.png", optimize=True)
        labels(picture).save(OUT / f"{name}.labels.png", optimize=True)
    photos = sorted(PHOTOS.glob("*.jpg"))
    for index in range(4):
        picture, mask = scene(index, [photos[(index * 31 + step * 17) % len(photos)] for step in range(4)])
        picture.save(OUT / f"scene{index}.png", optimize=True)
        mask.save(OUT / f"scene{index}.mask.png", optimize=True)
        labels(picture).save(OUT / f"scene{index}.labels.png", optimize=True)


if __name__ == "__main__":
    main()
