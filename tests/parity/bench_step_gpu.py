"""The step of bench_step.py on a GPU, at the sizes of deploy/gpu-suite: images from host memory, the paper's network.

Usage: bench_step_gpu.py [--quick] [tuned]. Two references: `ordinary` is contiguous float32 with TF32 convolutions, as the authors'
release; `tuned` is what PyTorch's tuning guide says: channels_last, bfloat16 autocast, cuDNN's benchmark, pinned memory
copied beside computing, LARS over all tensors at once. Prints a Markdown table.
"""

import contextlib
import math
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

import method

MODEL = {"backbone": "resnet50", "projector": {"hidden": 4096, "output": 64}, "predictor": {"hidden": 4096}}
METHOD = {"validityThreshold": 1e-3, "weightByArea": False}
OPTIMIZER = {"momentum": 0.9, "weightDecay": 1e-6, "trustCoefficient": 1e-3}
SIZE, CELLS = 224, 10
DEVICE = "cuda"


def made_batch(images):
    pin = lambda tensor: tensor.pin_memory()
    batch = {view: pin(torch.rand(images, 3, SIZE, SIZE) * 4 - 2) for view in ("raw", "view1", "view2")}
    cell = torch.arange(SIZE) * CELLS // SIZE
    batch["prior"] = pin((cell[:, None] * CELLS + cell[None, :]).to(torch.uint8).expand(images, SIZE, SIZE).contiguous())
    for view in (1, 2):
        corner = torch.rand(images, 2) * 0.4
        batch[f"boxes{view}"] = pin(torch.cat([corner, corner + 0.6], 1))
        batch[f"flips{view}"] = pin(torch.rand(images) < 0.5)
    return batch


def distances(x, x_norms, y):
    return (y.square().sum(1)[:, None] + x_norms[None, :] - 2 * (y @ x.t())).clamp_(min=0)


def kmeans(points, clusters, iterations=200, tolerance=1e-6):
    norms = points.square().sum(1)
    trials = 2 + int(math.log(clusters))
    centres = torch.empty(clusters, points.shape[1], device=points.device)
    centres[0] = points[int(torch.randint(len(points), (1,)))]
    nearest = distances(points, norms, centres[:1])[0]
    for k in range(1, clusters):
        cumulative = nearest.cumsum(0)
        drawn = torch.searchsorted(cumulative, torch.rand(trials, device=points.device) * cumulative[-1])
        drawn = drawn.clamp_(max=len(points) - 1)
        lowered = torch.minimum(distances(points, norms, points[drawn]), nearest)
        best = lowered.sum(1).argmin()
        centres[k] = points[drawn[best]]
        nearest = lowered[best]
    previous = math.inf
    for _ in range(iterations):
        nearest, labels = distances(points, norms, centres).min(0)
        inertia = nearest.sum().item()
        if abs(inertia - previous) < tolerance:
            break
        previous = inertia
        members = F.one_hot(labels, clusters).float()
        sums, counts = members.t() @ points, members.sum(0)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return labels


def make_masks(networks, raw, prior, clusters, autocast):
    regions, side = CELLS * CELLS, SIZE // 4
    with autocast():
        c4 = networks.target.c4(raw)
    c4 = c4.float()
    weights = method.one_hot_at(prior.long(), regions, c4.shape[-1]).flatten(2)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    points = F.normalize((weights @ c4.flatten(2).transpose(1, 2)).flatten(0, 1), dim=1)
    labels = kmeans(points, clusters).view(len(prior), regions)
    dominant = method.one_hot_at(prior.long(), regions, side).argmax(1)
    maps = labels.gather(1, dominant.flatten(1)).view_as(dominant)
    return F.one_hot(maps, clusters).permute(0, 3, 1, 2).float()


def align(maps, boxes, flips):
    side = maps.shape[-1]
    rois = torch.cat([torch.arange(len(boxes), device=DEVICE)[:, None].float(), boxes[:, [1, 0, 3, 2]] * side], 1)
    aligned = torchvision.ops.roi_align(maps, rois, side // 8)
    return torch.where(flips[:, None, None, None], aligned.flip(-1), aligned).flatten(2)


def lars(parameters, momentum, learning_rate):
    """All tensors at once, without waiting for the GPU."""
    params = list(parameters.values())
    grads = [p.grad.float() for p in params]
    if not momentum:
        momentum.extend(torch.zeros_like(p) for p in params)
    decayed = [p.dim() > 1 for p in params]
    weights, gradients = torch._foreach_norm(params), torch._foreach_norm(grads)
    updates = []
    for p, g, w, n, decays in zip(params, grads, weights, gradients, decayed):
        if decays:
            ratio = OPTIMIZER["trustCoefficient"] * w / (n + OPTIMIZER["weightDecay"] * w)
            ratio = torch.where((w > 0) & (n > 0), ratio, torch.ones_like(ratio))
            g = (g + OPTIMIZER["weightDecay"] * p) * ratio
        updates.append(g)
    torch._foreach_mul_(momentum, OPTIMIZER["momentum"])
    torch._foreach_add_(momentum, updates, alpha=learning_rate)
    torch._foreach_sub_(params, momentum)


def step(networks, momentum, host, clusters, tuned, autocast):
    batch = {name: tensor.to(DEVICE, non_blocking=True) for name, tensor in host.items()}
    views = lambda *names: torch.cat([batch[name] for name in names])
    arrange = (lambda t: t.contiguous(memory_format=torch.channels_last)) if tuned else (lambda t: t)
    for parameter in networks.parameters():
        parameter.grad = None
    with torch.no_grad():
        one_hot = make_masks(networks, arrange(batch["raw"]), batch["prior"], clusters, autocast)
        masks1 = align(one_hot, batch["boxes1"], batch["flips1"])
        masks2 = align(one_hot, batch["boxes2"], batch["flips2"])
    with autocast():
        q = networks.predictor(networks.online(arrange(views("view1", "view2")), torch.cat([masks1, masks2])))
    with torch.no_grad():
        target, online = list(networks.target.parameters()), list(networks.online.parameters())
        torch._foreach_mul_(target, 0.99)
        torch._foreach_add_(target, online, alpha=0.01)
        with autocast():
            z = networks.target(arrange(views("view2", "view1")), torch.cat([masks2, masks1]))
    loss = method.byol_loss(q.float(), z.float(), masks1, masks2, METHOD)
    loss.backward()
    with torch.no_grad():
        if tuned:
            lars(networks.trained(), momentum, 0.1)
        else:
            named = dict(momentum[0]) if momentum else {}
            method.lars(networks.trained(), named, OPTIMIZER, 0.1, norm=torch.Tensor.norm)
            momentum[:] = [named]
    return loss.item()


def measure(images, clusters, tuned, steps):
    torch.backends.cudnn.benchmark = tuned
    networks = method.Networks(MODEL).train().to(DEVICE)
    if tuned:
        networks = networks.to(memory_format=torch.channels_last)
    autocast = (lambda: torch.autocast(DEVICE, dtype=torch.bfloat16)) if tuned else contextlib.nullcontext
    host, momentum = made_batch(images), []
    torch.cuda.reset_peak_memory_stats()
    for number in range(3 + steps):
        if number == 3:
            torch.cuda.synchronize()
            started = time.perf_counter()
        step(networks, momentum, host, clusters, tuned, autocast)
    torch.cuda.synchronize()
    return images * steps / (time.perf_counter() - started), torch.cuda.max_memory_allocated() / 2**30


def main():
    quick = "--quick" in sys.argv
    steps = 3 if quick else 20
    print("| PyTorch, resnet50 at 224 | images/s | peak memory |\n| --- | --- | --- |")
    for tuned in (True,) if "tuned" in sys.argv else (False, True):
        for images, clusters in [(32, 4)] if quick else [(32, 4), (128, 4), (256, 4), (256, 100)]:
            name = f"{'tuned' if tuned else 'ordinary'}, batch {images}, K {clusters}"
            try:
                rate, peak = measure(images, clusters, tuned, steps)
                print(f"| {name} | {rate:.1f} | {peak:.1f} GiB |", flush=True)
            except torch.cuda.OutOfMemoryError:
                print(f"| {name} | out of memory | - |", flush=True)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
