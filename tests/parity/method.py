"""One step of METHOD.md in plain PyTorch and torchvision, written for clearness: an independent reference.

Nothing here is fast or shares code with the engine. Everything runs in float32 on the CPU unless a caller converts it.
"""

import math

import torch
import torch.nn.functional as F
import torchvision


class Head(torch.nn.Module):
    """Linear, batch norm over all rows, ReLU, Linear."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.fc1 = torch.nn.Linear(inputs, hidden)
        self.bn = torch.nn.BatchNorm1d(hidden)
        self.fc2 = torch.nn.Linear(hidden, outputs)

    def forward(self, x):
        images, regions, _ = x.shape
        rows = self.fc1(x.reshape(images * regions, -1))
        rows = self.fc2(torch.relu(self.bn(rows)))
        return rows.reshape(images, regions, -1)


class Encoder(torch.nn.Module):
    """Backbone and projector."""

    def __init__(self, model):
        super().__init__()
        self.backbone = getattr(torchvision.models, model["backbone"])(weights=None)
        channels = self.backbone.fc.in_features
        # Pooling and classifier are no part of the encoder.
        del self.backbone.avgpool, self.backbone.fc
        self.projector = Head(channels, model["projector"]["hidden"], model["projector"]["output"])

    def c4(self, x):
        b = self.backbone
        x = b.maxpool(b.relu(b.bn1(b.conv1(x))))
        return b.layer3(b.layer2(b.layer1(x)))

    def forward(self, x, masks):
        x = self.backbone.layer4(self.c4(x))
        rows = x.flatten(2).transpose(1, 2)
        masks = masks / masks.sum(-1, keepdim=True).clamp(min=1)
        return self.projector(masks @ rows)


class Networks(torch.nn.Module):
    """Online network, predictor and target."""

    def __init__(self, model):
        super().__init__()
        self.online = Encoder(model)
        output = model["projector"]["output"]
        self.predictor = Head(output, model["predictor"]["hidden"], output)
        self.target = Encoder(model)
        for parameter in self.target.parameters():
            parameter.requires_grad_(False)

    def trained(self):
        """Parameters that gradients update, by name."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("target.")}

    def state(self):
        """Parameters and buffers by name, without batch counters."""
        return {n: t for n, t in self.state_dict().items() if not n.endswith("num_batches_tracked")}


def one_hot_at(prior, regions, side):
    """One-hot label maps, resized: (B, S, side, side)."""
    maps = F.one_hot(prior, regions).permute(0, 3, 1, 2).float()
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def pool_regions(c4, prior, regions):
    """Mean of the features under each region, image by image."""
    weights = one_hot_at(prior, regions, c4.shape[-1]).to(c4.dtype)
    pooled = torch.zeros(c4.shape[0], regions, c4.shape[1], dtype=c4.dtype)
    for image in range(c4.shape[0]):
        for region in range(regions):
            weight = weights[image, region]
            pooled[image, region] = (c4[image] * weight).sum((1, 2)) / max(weight.sum().item(), 1.0)
    return pooled


def squared_distances(points, centres):
    """(n, K), from the differences themselves."""
    return torch.stack([(points - centre).square().sum(1) for centre in centres], 1)


def kmeans(points, centres, iterations, tolerance, margins=None):
    """Lloyd's iterations; labels of the last assignment. `margins` collects how clear each assignment was."""
    previous = math.inf
    centres = centres.clone()
    for _ in range(iterations):
        distances = squared_distances(points, centres)
        nearest, labels = distances.min(1)
        if margins is not None and centres.shape[0] > 1:
            two = distances.topk(2, 1, largest=False).values
            margins.append((two[:, 1] - two[:, 0])[points.norm(dim=1) > 0].min().item())
        inertia = nearest.double().sum().item()
        if abs(inertia - previous) < tolerance:
            break
        previous = inertia
        for k in range(centres.shape[0]):
            members = points[labels == k]
            if len(members):
                centres[k] = members.mean(0)
    return labels


def plus_plus(points, clusters, generator):
    """k-means++ with 2 + ln K candidates per centre."""
    chosen = [points[int(torch.randint(len(points), (1,), generator=generator))]]
    nearest = squared_distances(points, chosen)[:, 0]
    for _ in range(1, clusters):
        if nearest.sum() > 0:
            drawn = torch.multinomial(nearest, 2 + int(math.log(clusters)), replacement=True, generator=generator)
        else:
            drawn = torch.randint(len(points), (1,), generator=generator)
        lowered = torch.minimum(squared_distances(points, points[drawn]), nearest[:, None])
        best = int(lowered.sum(0).argmin())
        chosen.append(points[drawn[best]])
        nearest = lowered[:, best]
    return torch.stack(chosen)


def align(maps, boxes, flips):
    """RoIAlign of every mask under its view's box, mirrored with the view: (B, K, cells)."""
    side = maps.shape[-1]
    corners = boxes[:, [1, 0, 3, 2]] * side
    rois = torch.cat([torch.arange(len(boxes), dtype=corners.dtype)[:, None], corners], 1)
    aligned = torchvision.ops.roi_align(maps, rois, side // 8)
    for image, flip in enumerate(flips):
        if flip:
            aligned[image] = aligned[image].flip(-1)
    return aligned.flatten(2)


def make_masks(networks, batch, method, k, margins=None, seed=0):
    """(labels (B, S), label maps (B, M, M), one-hot maps (B, K, M, M))."""
    prior = batch["prior"].long()
    regions, side = int(prior.max()) + 1, prior.shape[-1] // 4
    # argmax takes the first of equals.
    dominant = one_hot_at(prior, regions, side).argmax(1)
    if not method["maskPrediction"]["enabled"] or k > 128:
        labels = torch.arange(regions).expand(len(prior), regions)
        return labels, dominant, F.one_hot(dominant, regions).permute(0, 3, 1, 2).to(batch["raw"].dtype)
    with torch.no_grad():
        points = pool_regions(networks.target.c4(batch["raw"]), prior, regions).flatten(0, 1)
        points = F.normalize(points, dim=1)
        centres = batch.get("centres")
        if centres is None:
            centres = plus_plus(points, k, torch.Generator().manual_seed(seed))
        prediction = method["maskPrediction"]
        labels = kmeans(points, centres, prediction["maxIterations"], prediction["tolerance"], margins)
    labels = labels.reshape(len(prior), regions)
    maps = torch.stack([labels[image][dominant[image]] for image in range(len(prior))])
    return labels, maps, F.one_hot(maps, k).permute(0, 3, 1, 2).to(batch["raw"].dtype)


def byol_loss(q, z, masks1, masks2, method):
    """Over both orders; rows of q and z belong together."""
    mass1, mass2 = masks1.sum(-1), masks2.sum(-1)
    threshold = method["validityThreshold"]
    weights = ((mass1 > threshold) & (mass2 > threshold)).to(q.dtype)
    if method["weightByArea"]:
        weights = weights * (mass1 + mass2) / 2
    weights = torch.cat([weights, weights])
    distances = (F.normalize(q, dim=-1) - F.normalize(z, dim=-1)).square().sum(-1)
    if weights.sum() == 0:
        return (distances * 0).sum()
    return (distances * weights).sum() / weights.sum()


def exact_norm(tensor):
    """In float64: torch's norm of a large float32 tensor on the CPU is off by some 4e-5."""
    return tensor.double().norm().item()


def lars(parameters, momentum, optimizer, learning_rate, norm=exact_norm):
    """One update, in place. `momentum` lacks what was never updated."""
    for name, parameter in parameters.items():
        update = parameter.grad
        if parameter.dim() > 1:
            decay = optimizer["weightDecay"]
            weight, gradient = norm(parameter), norm(update)
            ratio = 1.0
            if weight > 0 and gradient > 0:
                ratio = optimizer["trustCoefficient"] * weight / (gradient + decay * weight)
            update = ratio * (update + decay * parameter)
        update = learning_rate * update
        if name in momentum:
            update = optimizer["momentum"] * momentum[name] + update
        momentum[name] = update.clone()
        parameter.sub_(update)


def step(networks, momentum, batch, spec, k, tau, learning_rate, margins=None):
    """One step; returns what it computed on the way, and leaves the new state in `networks` and `momentum`."""
    method = spec["method"]
    networks.train()
    networks.zero_grad(set_to_none=True)
    labels, maps, one_hot = make_masks(networks, batch, method, k, margins)
    masks1 = align(one_hot, batch["boxes1"], batch["flips1"])
    masks2 = align(one_hot, batch["boxes2"], batch["flips2"])

    views = torch.cat([batch["view1"], batch["view2"]])
    q = networks.predictor(networks.online(views, torch.cat([masks1, masks2])))
    with torch.no_grad():
        for target, online in zip(networks.target.parameters(), networks.online.parameters()):
            target.copy_(tau * target + (1 - tau) * online)
        views = torch.cat([batch["view2"], batch["view1"]])
        z = networks.target(views, torch.cat([masks2, masks1]))
    loss = byol_loss(q, z, masks1, masks2, method)
    loss.backward()
    trained = networks.trained()
    results = {"loss": loss.detach(), "labels": labels, "masks": maps, "q": q.detach(), "z": z}
    results |= {f"grad.{name}": parameter.grad.clone() for name, parameter in trained.items()}
    with torch.no_grad():
        lars(trained, momentum, spec["optimizer"], learning_rate)
    return results
