"""The reference on the command line, with the arguments and names of `r2o-worker golden`, and the maker of fixtures.

    reference.py golden --config JOB.json --state S --batch B --k K --tau T --lr L --out O
    reference.py fixtures OUT_FOLDER
"""

import argparse
import copy
import itertools
import json
import pathlib

import torch
import torch.nn.functional as F

import method
import tensors

# METHOD.md's values, for what a job leaves out.
DEFAULTS = {
    "method": {
        "maskPrediction": {"enabled": True, "maxIterations": 200, "tolerance": 1e-6},
        "validityThreshold": 1e-3,
        "weightByArea": False,
    },
    "model": {
        "backbone": "resnet50",
        "projector": {"hidden": 4096, "output": 256},
        "predictor": {"hidden": 4096},
    },
    "optimizer": {"momentum": 0.9, "weightDecay": 1e-6, "trustCoefficient": 1e-3},
}

SIZE, IMAGES, REGIONS, STEPS = 96, 4, 49, 3
CLUSTERS = (1, 4, 16, 128)
BACKBONES = ("resnet18", "resnet50")
TAU, LEARNING_RATE = 0.97, 0.01
PROJECTIONS, HEAD = 4, 8
# A label is a fair comparison only if no rounding can change it, and a gradient only if no rounding moves an activation
# over a ReLU's kink.
CLEAR, STEADY, NUDGE = 1e-5, 1e-4, 2e-7


def merged(given, default):
    out = dict(default)
    for key, value in given.items():
        out[key] = merged(value, default[key]) if isinstance(default.get(key), dict) and isinstance(value, dict) else value
    return out


def load(spec, state):
    networks = method.Networks(spec["model"])
    parameters = {n: t for n, t in state.items() if not n.startswith("momentum.")}
    missing = networks.load_state_dict(parameters, strict=False)
    wrong = [n for n in missing.missing_keys if not n.endswith("num_batches_tracked")] + missing.unexpected_keys
    if wrong:
        raise SystemExit(f"the state does not fit the model: {wrong}")
    return networks, {n.removeprefix("momentum."): t for n, t in state.items() if n.startswith("momentum.")}


def golden(arguments):
    job = json.loads(arguments.config.read_text())
    spec = merged(job["spec"], DEFAULTS)
    networks, momentum = load(spec, tensors.read(arguments.state))
    batch = tensors.read(arguments.batch)
    out = method.step(networks, momentum, batch, spec, arguments.k, arguments.tau, arguments.lr)
    out |= networks.state()
    out |= {f"momentum.{name}": tensor for name, tensor in momentum.items()}
    tensors.write(arguments.out, out)


def job(backbone):
    """A small job; the Rust test writes the same."""
    return {
        "apiVersion": "r2o.dev/v1",
        "kind": "TrainJob",
        "metadata": {"name": "parity"},
        "spec": {
            "data": {"url": "unused", "imageSize": SIZE},
            "batch": {"lanes": 1, "samplesPerLane": IMAGES},
            "method": {"prior": {"kind": "slic", "segments": REGIONS}},
            "model": {
                "backbone": backbone,
                "projector": {"hidden": 64, "output": 16},
                "predictor": {"hidden": 64},
            },
        },
    }


def made_state(networks):
    """A state that is a function of names and shapes.

    In float32 an activation close to 0 may fall on either side of a ReLU, and one that does changes gradients by some
    thousandths, in PyTorch alone as well (contiguous against channels_last). So the trained backbone's norms keep their
    output away from 0: small scales, and shifts of 0.4 to 0.6, which leave half of the inner channels off.
    """
    state, closing = {}, "bn3" if "target.backbone.layer1.0.bn3.bias" in networks.state() else "bn2"
    for name, tensor in networks.state().items():
        # Not the last stage of ResNet-18: it has few activations, and pooled features should differ.
        kept_away = name.startswith("online.backbone.") and not (closing == "bn2" and ".layer4." in name)
        shape = tuple(tensor.shape)
        closes = ".layer" in name and (f".{closing}." in name or ".downsample.1." in name)
        if name.endswith("running_mean"):
            values = tensors.uniform(name, shape, -0.1, 0.1)
        elif name.endswith("running_var"):
            values = tensors.uniform(name, shape, 0.5, 1.5)
        elif len(shape) > 1:
            limit = (3.0 / tensor[0].numel()) ** 0.5
            values = tensors.uniform(name, shape, -limit, limit)
        elif name.endswith("weight"):
            scales = ((0.2, 0.4) if closes else (0.1, 0.2)) if kept_away else (0.5, 1.5)
            values = tensors.uniform(name, shape, *scales)
        else:
            values = tensors.uniform(name, shape, -0.2, 0.2)
            if kept_away:
                # What closes a block is added to its input and stays on.
                values = values.abs() + 0.4 if closes else values + torch.tensor(0.4).copysign(values)
        state[name] = values
    return state


def made_batch(salt, step):
    """A batch that is a function of its number: coarse colours under noise, a prior of uneven cells, boxes and flips."""
    name = f"salt {salt} step {step} "
    batch = {}
    for view in ("raw", "view1", "view2"):
        coarse = tensors.uniform(name + view, (IMAGES, 3, SIZE // 8, SIZE // 8), -2.0, 2.0)
        noise = tensors.uniform(name + view + " noise", (IMAGES, 3, SIZE, SIZE), -0.5, 0.5)
        batch[view] = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3) + noise
    # Cells of a 7 x 7 grid whose lines are shifted image by image; some regions vanish.
    edges = tensors.uniform(name + "prior", (IMAGES, 2, 6), -0.5, 0.5)
    lines = (torch.arange(1, 7) + edges) * (SIZE / 7)
    at = torch.arange(SIZE).float() + 0.5
    row, column = ((at[None, :, None] > lines[:, axis][:, None, :]).sum(-1) for axis in (0, 1))
    batch["prior"] = row[:, :, None] * 7 + column[:, None, :]
    for view in (1, 2):
        corner = tensors.uniform(f"{name}corner{view}", (IMAGES, 2), 0.0, 0.4)
        extent = tensors.uniform(f"{name}extent{view}", (IMAGES, 2), 0.1, 0.6)
        batch[f"boxes{view}"] = torch.cat([corner, corner + extent], 1)
        batch[f"flips{view}"] = (tensors.uniform(f"{name}flip{view}", (IMAGES,), 0.0, 1.0) < 0.5).float()
    return batch


def without_trace(networks, compute):
    """What `compute` returns; buffers stay as they are."""
    buffers = {name: tensor.clone() for name, tensor in networks.named_buffers()}
    with torch.no_grad():
        result = compute()
        for name, tensor in networks.named_buffers():
            tensor.copy_(buffers[name])
    return result


def first_centres(networks, batch, k):
    """K-means' start: embeddings of some regions, in float16 to keep fixtures small."""
    c4 = without_trace(networks, lambda: networks.train().target.c4(batch["raw"]))
    points = F.normalize(method.pool_regions(c4, batch["prior"], REGIONS).flatten(0, 1), dim=1)
    return method.plus_plus(points, k, torch.Generator().manual_seed(k)).half()


def gradients(networks, batch, spec, k):
    """Gradients of a step that is not taken."""
    networks = copy.deepcopy(networks)
    results = method.step(networks, {}, batch, spec, k, TAU, 0.0)
    return {n.removeprefix("grad."): t.double() for n, t in results.items() if n.startswith("grad.")}


def is_steady(networks, batch, spec, k):
    """Whether gradients in float32, in float64, and with parameters off by a rounding agree."""
    exact = gradients(copy.deepcopy(networks).double(), {n: t.double() for n, t in batch.items()}, spec, k)
    nudged = copy.deepcopy(networks)
    with torch.no_grad():
        for name, parameter in nudged.named_parameters():
            signs = torch.from_numpy(tensors.signs(name, parameter.numel())).float().view_as(parameter)
            parameter.mul_(1 + NUDGE * signs)
    for other in (gradients(networks, batch, spec, k), gradients(nudged, batch, spec, k)):
        for name, gradient in exact.items():
            scale = max(gradient.norm(), exact[name.replace(".bias", ".weight")].norm())
            if (other[name] - gradient).norm() > STEADY * scale:
                return False
    return True


def clear_batch(networks, spec, number, k):
    """The first batch of a step in which no assignment of K-means and no gradient hangs on rounding."""
    for salt in itertools.count():
        batch = made_batch(salt, number)
        centres = first_centres(networks, batch, k)
        batch["centres"] = centres.float()
        margins = []
        without_trace(networks, lambda: method.make_masks(networks, batch, spec["method"], k, margins))
        if min(margins, default=1.0) > CLEAR and is_steady(networks, batch, spec, k):
            return salt, batch, centres


def sketch(name, tensor):
    """A few numbers that stand for a large tensor: norm, keyed projections, first values."""
    flat = tensor.detach().double().flatten()
    numbers = [flat.norm().item()]
    for index in range(PROJECTIONS):
        signs = torch.from_numpy(tensors.signs(f"{name} {index}", flat.numel()))
        numbers.append((signs * flat).sum().item())
    numbers += (flat[:HEAD].tolist() + [0.0] * HEAD)[:HEAD]
    return torch.tensor(numbers, dtype=torch.float64)


def fixture(backbone, k):
    """Three steps in a row."""
    spec = merged(job(backbone)["spec"], DEFAULTS)
    networks = method.Networks(spec["model"])
    networks, momentum = load(spec, made_state(networks))
    out = {}
    for number in range(STEPS):
        salt, batch, centres = clear_batch(networks, spec, number, k)
        print(f"{backbone} K={k} step {number}: salt {salt}", flush=True)
        out[f"{number}.salt"] = torch.tensor(salt)
        results = method.step(networks, momentum, batch, spec, k, TAU, LEARNING_RATE)
        results |= networks.state()
        results |= {f"momentum.{name}": tensor for name, tensor in momentum.items()}
        out[f"{number}.centres"] = centres
        for name, tensor in results.items():
            if name in ("labels", "masks"):
                out[f"{number}.{name}"] = tensor.to(torch.uint8)
            elif name in ("loss", "q", "z"):
                out[f"{number}.{name}"] = tensor.float()
            else:
                out[f"{number}.{name}"] = sketch(name, tensor)
    return out


def fixtures(arguments):
    for backbone in BACKBONES:
        for k in CLUSTERS:
            tensors.write(arguments.out / f"{backbone}-k{k}.safetensors", fixture(backbone, k))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("golden")
    for name in ("config", "state", "batch", "out"):
        one.add_argument(f"--{name}", type=pathlib.Path, required=True)
    one.add_argument("--k", type=int, required=True)
    one.add_argument("--tau", type=float, required=True)
    one.add_argument("--lr", type=float, required=True)
    one.set_defaults(run=golden)
    many = commands.add_parser("fixtures")
    many.add_argument("out", type=pathlib.Path)
    many.set_defaults(run=fixtures)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
