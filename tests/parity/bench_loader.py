"""The loader's work with PIL and torchvision: decode, raw view, two augmented views, stored label map. One thread.

Prints a JSON line; `data-bench loader` does the same.
"""

import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

torch.set_num_threads(1)
SIDE, BATCH, STEPS = 224, 32, 8
NORMALISE = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def view(blur, solarise):
    return T.Compose([
        T.RandomResizedCrop(SIDE, interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=blur),
        T.RandomSolarize(128, p=solarise),
        T.ToTensor(),
        NORMALISE,
    ])


FIRST, SECOND = view(1.0, 0.0), view(0.1, 0.2)
RAW = T.Compose([T.Resize((SIDE, SIDE), interpolation=T.InterpolationMode.BICUBIC), T.ToTensor(), NORMALISE])


def label_map():
    out = io.BytesIO()
    Image.fromarray((np.arange(SIDE * SIDE) // 500 % 100).astype(np.uint8).reshape(SIDE, SIDE)).save(out, "PNG")
    return out.getvalue()


def main():
    files = [path.read_bytes() for path in sorted(Path("tests/fixtures/photos").glob("*.jpg"))]
    stored = label_map()

    def sample(index):
        picture = Image.open(io.BytesIO(files[index % len(files)])).convert("RGB")
        labels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(stored))).copy()).long()
        return RAW(picture), FIRST(picture), SECOND(picture), labels

    def batch(step):
        return [torch.stack(part) for part in zip(*(sample(step * BATCH + i) for i in range(BATCH)))]

    batch(0)
    started = time.perf_counter()
    for step in range(STEPS):
        batch(step + 1)
    rate = STEPS * BATCH / (time.perf_counter() - started)
    print(json.dumps({"name": "loader", "value": rate, "unit": "images/s"}))


if __name__ == "__main__":
    main()
