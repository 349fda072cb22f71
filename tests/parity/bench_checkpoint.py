"""A synchronous `torch.save` of a ResNet-50 state: what training is held for by `engine-bench checkpoint` is compared with it.

The state has as many values as ours: online and target networks and momentum. It goes to a file in the temporary folder,
without waiting for the disk.
"""

import json
import statistics
import tempfile
import time

import torch

import method

MODEL = {"backbone": "resnet50", "projector": {"hidden": 4096, "output": 256}, "predictor": {"hidden": 4096}}
RUNS = 3


def main():
    torch.set_num_threads(2)
    networks = method.Networks(MODEL)
    state = {"networks": networks.state_dict(), "momentum": [torch.zeros_like(p) for p in networks.trained().values()]}
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(RUNS + 1):
            started = time.perf_counter()
            torch.save(state, f"{folder}/{run % 2}.pt")
            times.append(time.perf_counter() - started)
    print(json.dumps({"name": "checkpoint hold", "value": statistics.median(times[1:]), "unit": "s"}))


if __name__ == "__main__":
    main()
