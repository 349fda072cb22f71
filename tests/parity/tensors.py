"""safetensors files, and tensors that are a function of their name: both sides of the comparison make the same ones."""

import json
import struct

import numpy as np
import torch

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path):
    """{name: tensor} of a safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


def write(path, tensors):
    """Writes {name: tensor} as a safetensors file, widest types first so that all are aligned."""
    words = {np.dtype(kind): word for word, kind in TYPES.items()}
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header, offset = {}, 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": words[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(arrays[name].tobytes())


def hashes(name, count):
    """64-bit numbers 0..count of a name: SplitMix64 of FNV-1a."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(name, shape, low, high):
    """float32 tensor in [low, high): the upper 24 bits of each hash, scaled in float64."""
    count = int(np.prod(shape, dtype=np.int64))
    fraction = (hashes(name, count) >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    values = low + (high - low) * fraction
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def signs(name, count):
    """+1 or -1: the lowest bit of each hash."""
    return 1.0 - 2.0 * (hashes(name, count) & np.uint64(1)).astype(np.float64)
