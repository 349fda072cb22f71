"""The loader's work in Python, one thread: decode, raw view, two augmented views, label map, normalise, stack.

`loader` and `loader-online-slic` are the authors' release (Pillow, torchvision, OpenCV's blur, its round trip through a tensor,
scikit-image's SLIC), which knows no stored label maps; `loader-no-slic` is the same without SLIC. `loader-best-python` is the
fastest that we know of: albumentations on OpenCV, whose resize has no antialiasing, with a stored map. Prints JSON lines with
rates by processor time; `data-bench loader` does the same work. Usage: bench_loader.py PHOTOS
"""

import io
import json
import sys
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from skimage.segmentation import slic
from torchvision import transforms as T
from torchvision.transforms import functional as F

torch.set_num_threads(1)
cv2.setNumThreads(1)
SIDE, BATCH, STEPS = 224, 32, 3
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FINISH = T.Compose([T.ToTensor(), T.Normalize(MEAN, DEVIATION)])


def blur(picture):
    sigma = np.random.uniform(0.1, 2.0)
    return Image.fromarray(cv2.GaussianBlur(np.asarray(picture), (23, 23), sigma))


def round_trip(picture):
    return F.to_pil_image(F.to_tensor(picture).clip(max=255))


def view(blurred, solarised):
    return T.Compose([
        T.RandomResizedCrop(SIDE, interpolation=T.InterpolationMode.BICUBIC),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
        T.RandomApply([T.Lambda(blur)], p=blurred),
        T.RandomSolarize(128, p=solarised),
        FINISH,
    ])


def fast_view(blurred, solarised):
    return A.Compose([
        A.RandomResizedCrop((SIDE, SIDE), interpolation=cv2.INTER_CUBIC),
        A.HorizontalFlip(),
        A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1), p=0.8),
        A.ToGray(p=0.2),
        A.GaussianBlur((23, 23), (0.1, 2.0), p=blurred),
        A.Solarize((0.5, 0.5), p=solarised),
        A.Normalize(MEAN, DEVIATION),
    ])


FIRST, SECOND = view(1.0, 0.0), view(0.1, 0.2)
RAW = T.Compose([T.Resize((SIDE, SIDE), interpolation=T.InterpolationMode.BICUBIC), FINISH])
FAST = fast_view(1.0, 0.0), fast_view(0.1, 0.2)
FAST_RAW = A.Compose([A.Resize(SIDE, SIDE, interpolation=cv2.INTER_CUBIC), A.Normalize(MEAN, DEVIATION)])


def label_map():
    out = io.BytesIO()
    Image.fromarray((np.arange(SIDE * SIDE) // 500 % 100).astype(np.uint8).reshape(SIDE, SIDE)).save(out, "PNG")
    return out.getvalue()


STORED = label_map()


def stored(_):
    return torch.from_numpy(np.asarray(Image.open(io.BytesIO(STORED))).copy()).long()


def computed(raw):
    return torch.from_numpy(slic(raw.permute(1, 2, 0).numpy(), n_segments=100, compactness=10, start_label=0)).long()


def released(data, labels):
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    raw = RAW(round_trip(picture))
    return raw, FIRST(round_trip(picture)), SECOND(round_trip(picture)), labels(raw)


def fast(data, _):
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    planes = [make(image=picture)["image"].transpose(2, 0, 1) for make in (FAST_RAW, *FAST)]
    return *(torch.from_numpy(np.ascontiguousarray(view)) for view in planes), stored(None)


def main():
    files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]

    def rate(sample, labels):
        def batch(step):
            samples = (sample(files[(step * BATCH + i) % len(files)], labels) for i in range(BATCH))
            return [torch.stack(part) for part in zip(*samples)]

        batch(0)
        started = time.process_time()
        for step in range(STEPS):
            batch(step + 1)
        return STEPS * BATCH / (time.process_time() - started)

    for names, sample, labels in [
        (["loader", "loader-online-slic"], released, computed),
        (["loader-no-slic"], released, stored),
        (["loader-best-python"], fast, stored),
    ]:
        value = rate(sample, labels)
        for name in names:
            print(json.dumps({"name": name, "value": value, "unit": "images/s"}), flush=True)


if __name__ == "__main__":
    main()
