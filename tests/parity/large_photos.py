"""Writes JPEGs of ImageNet's typical size (500 x 375 pixels, some 110 KB) into the folder given: the fixtures' photographs
enlarged, with film grain, each at the quality that comes nearest. Both sides of the loader's comparison read them.

Usage: large_photos.py FOLDER [COUNT]
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIZE, BYTES, GRAIN = (500, 375), 110_000, 5.0


def encoded(picture, quality):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def large(path, seed):
    picture = ImageOps.fit(Image.open(path).convert("RGB"), SIZE, Image.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, GRAIN, (SIZE[1], SIZE[0], 1))
    picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
    return min((encoded(picture, quality) for quality in range(80, 99, 3)), key=lambda data: abs(len(data) - BYTES))


def main():
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64
    folder.mkdir(parents=True, exist_ok=True)
    photos = sorted(Path("tests/fixtures/photos").glob("*.jpg"))
    for index in range(count):
        path = folder / f"{index:03}.jpg"
        if not path.exists():
            path.write_bytes(large(photos[index % len(photos)], index))


if __name__ == "__main__":
    main()
