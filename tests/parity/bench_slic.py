"""scikit-image's SLIC on the pictures that `data-bench slic` uses. Prints a JSON line. One thread."""

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import slic

pictures = [
    np.asarray(Image.open(path).convert("RGB"))
    for path in sorted(Path("tests/fixtures/slic").glob("*.png"))
    if path.name.count(".") == 1
]


def run():
    started = time.process_time()
    for picture in pictures:
        slic(picture, n_segments=100, compactness=10, start_label=0, channel_axis=-1)
    return (time.process_time() - started) * 1e3 / len(pictures)


print(json.dumps({"name": "slic", "value": min(run() for _ in range(3)), "unit": "ms/image"}))
