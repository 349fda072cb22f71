"""Writes fixtures/roi_align.safetensors: torchvision's RoIAlign on some maps and boxes, large, tiny and at the edges.

    roi.py OUT_FILE
"""

import pathlib
import sys

import torch

import method
import tensors

SIDES = (8, 24, 56)
BOXES = 24


def main(out):
    written = {}
    for side in SIDES:
        corner = tensors.uniform(f"roi corner {side}", (BOXES, 2), 0.0, 0.9)
        extent = tensors.uniform(f"roi extent {side}", (BOXES, 2), 0.0, 1.0) * (1 - corner)
        boxes = torch.cat([corner, corner + extent], 1)
        boxes[0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
        boxes[1] = torch.tensor([0.0, 0.25, 0.5, 0.75])
        boxes[2] = torch.tensor([0.999, 0.999, 1.0, 1.0])
        flips = tensors.uniform(f"roi flip {side}", (BOXES,), 0.0, 1.0) < 0.5
        # A pattern that the Rust test makes as well.
        pixel = torch.arange(side)
        pattern = (pixel[:, None] * 31 + pixel[None, :] * 17) % 23
        maps = torch.stack([pattern, (pattern + 7) % 23]).float().expand(BOXES, 2, side, side).contiguous()
        written |= {f"{side}.boxes": boxes, f"{side}.flips": flips.float()}
        written[f"{side}.aligned"] = method.align(maps, boxes, flips)
    tensors.write(out, written)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
