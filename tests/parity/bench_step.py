"""One R2O step in ordinary PyTorch (contiguous float32, no tricks): what `engine-bench step` is compared with.

Batched where PyTorch has an operation for it, with the usual loops over clusters and parameters. Prints JSON lines, the
measures of worker/engine/examples/engine-bench.
"""

import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
import torchvision

import bench_kmeans
import method
import tensors

CASES = (("resnet18", 96, 32), ("resnet50", 96, 16))
STEPS, K, CELLS = 3, 16, 10
MODEL = {"projector": {"hidden": 4096, "output": 256}, "predictor": {"hidden": 4096}}
METHOD = {"validityThreshold": 1e-3, "weightByArea": False}
OPTIMIZER = {"momentum": 0.9, "weightDecay": 1e-6, "trustCoefficient": 1e-3}


def made_batch(size, images):
    """Engine-bench makes the same."""
    batch = {view: tensors.uniform(view, (images, 3, size, size), -2.0, 2.0) for view in ("raw", "view1", "view2")}
    cell = torch.arange(size) * CELLS // size
    batch["prior"] = (cell[:, None] * CELLS + cell[None, :]).expand(images, size, size).contiguous()
    for view in (1, 2):
        corner = tensors.uniform(f"corner{view}", (images, 2), 0.0, 0.4)
        extent = tensors.uniform(f"extent{view}", (images, 2), 0.1, 0.6)
        batch[f"boxes{view}"] = torch.cat([corner, corner + extent], 1)
        batch[f"flips{view}"] = tensors.uniform(f"flip{view}", (images,), 0.0, 1.0) < 0.5
    return batch


def make_masks(networks, batch):
    prior = batch["prior"]
    regions, side = int(prior.max()) + 1, prior.shape[-1] // 4
    c4 = networks.target.c4(batch["raw"]).float()
    weights = method.one_hot_at(prior, regions, c4.shape[-1]).flatten(2)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    points = F.normalize((weights @ c4.flatten(2).transpose(1, 2)).flatten(0, 1), dim=1)
    labels = bench_kmeans.kmeans(points, K).view(len(prior), regions)
    dominant = method.one_hot_at(prior, regions, side).argmax(1)
    maps = labels.gather(1, dominant.flatten(1)).view_as(dominant)
    return F.one_hot(maps, K).permute(0, 3, 1, 2).float()


def align(maps, boxes, flips):
    side = maps.shape[-1]
    rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes[:, [1, 0, 3, 2]] * side], 1)
    aligned = torchvision.ops.roi_align(maps, rois, side // 8)
    return torch.where(flips[:, None, None, None], aligned.flip(-1), aligned).flatten(2)


def step(networks, momentum, batch, autocast):
    for parameter in networks.parameters():
        parameter.grad = None
    with torch.no_grad():
        with autocast():
            one_hot = make_masks(networks, batch)
        masks1 = align(one_hot, batch["boxes1"], batch["flips1"])
        masks2 = align(one_hot, batch["boxes2"], batch["flips2"])
    with autocast():
        views = torch.cat([batch["view1"], batch["view2"]])
        q = networks.predictor(networks.online(views, torch.cat([masks1, masks2])))
    with torch.no_grad():
        for target, online in zip(networks.target.parameters(), networks.online.parameters()):
            target.mul_(0.99).add_(online, alpha=0.01)
        with autocast():
            views = torch.cat([batch["view2"], batch["view1"]])
            z = networks.target(views, torch.cat([masks2, masks1]))
    loss = method.byol_loss(q.float(), z.float(), masks1, masks2, METHOD)
    loss.backward()
    with torch.no_grad():
        method.lars(networks.trained(), momentum, OPTIMIZER, 0.1, norm=torch.Tensor.norm)
    return loss.item()


def measure(backbone, size, images, autocast):
    networks = method.Networks(MODEL | {"backbone": backbone}).train()
    batch, momentum, times = made_batch(size, images), {}, []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        step(networks, momentum, batch, autocast)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main():
    torch.set_num_threads(2)
    torch.manual_seed(0)
    precisions = {"float32": contextlib.nullcontext}
    if "avx512_bf16" in open("/proc/cpuinfo").read():
        precisions["bfloat16"] = contextlib.nullcontext  # the reference stays in float32: that is what bfloat16 must beat
    for backbone, size, images in CASES:
        for precision, autocast in precisions.items():
            seconds = measure(backbone, size, images, autocast)
            print(json.dumps({"name": f"step {backbone}@{size} {precision}", "value": seconds, "unit": "s"}), flush=True)


if __name__ == "__main__":
    main()
