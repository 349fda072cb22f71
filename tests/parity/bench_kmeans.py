"""K-means in PyTorch as it is usually written, with a loop over the clusters: what `engine-bench kmeans` is compared with.

Prints JSON lines, the measures of worker/engine/examples/engine-bench.
"""

import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

import tensors

POINTS, CHANNELS, GROUPS = 3200, 1024, 60
RUNS, ITERATIONS, TOLERANCE = 5, 200, 1e-6


def distances(x, x_norms, y, y_norms):
    """Squared distances (n of y, n of x)."""
    return (y_norms[:, None] + x_norms[None, :] - 2 * (y @ x.t())).clamp_(min=0)


def plus_plus(points, norms, clusters):
    trials = 2 + int(math.log(clusters))
    centres = torch.empty(clusters, points.shape[1])
    first = int(torch.randint(len(points), (1,)))
    centres[0] = points[first]
    nearest = distances(points, norms, points[first : first + 1], norms[first : first + 1])[0]
    for k in range(1, clusters):
        cumulative = nearest.cumsum(0)
        drawn = torch.searchsorted(cumulative, torch.rand(trials) * cumulative[-1]).clamp_(max=len(points) - 1)
        lowered = torch.minimum(distances(points, norms, points[drawn], norms[drawn]), nearest)
        best = lowered.sum(1).argmin()
        centres[k] = points[drawn[best]]
        nearest = lowered[best]
    return centres


def kmeans(points, clusters, iterations=ITERATIONS, tolerance=TOLERANCE):
    norms = points.square().sum(1)
    centres = plus_plus(points, norms, clusters)
    previous = math.inf
    for _ in range(iterations):
        nearest, labels = distances(points, norms, centres, centres.square().sum(1)).min(0)
        inertia = nearest.sum().item()
        if abs(inertia - previous) < tolerance:
            break
        previous = inertia
        for k in range(clusters):
            members = points[labels == k]
            if len(members):
                centres[k] = members.mean(0)
    return labels


def made_points():
    """Unit vectors around some directions; engine-bench makes the same."""
    groups = tensors.uniform("groups", (GROUPS, CHANNELS), 0.0, 1.0)
    noise = tensors.uniform("noise", (POINTS, CHANNELS), -1.0, 1.0)
    which = torch.arange(POINTS) % GROUPS
    return F.normalize(groups[which] + noise, dim=1)


def main():
    torch.set_num_threads(2)
    points = made_points()
    for clusters in (128, 4):
        times = []
        for run in range(RUNS + 1):
            torch.manual_seed(run)
            started = time.perf_counter()
            kmeans(points, clusters)
            times.append(time.perf_counter() - started)
        print(json.dumps({"name": f"kmeans k{clusters}", "value": statistics.mean(times[1:]), "unit": "s"}))


if __name__ == "__main__":
    main()
