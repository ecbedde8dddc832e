"""The integers of a detector, run in numpy: ``python integers_reader.py X.npz image.npy`` for uint8 (3, H, W) pixels.

X.npz is written by ``fxqat export X.fxqat --integers X.npz``; ``run`` gives every tensor of codes by its name.
"""

import json
import sys

import numpy as np


def run(path: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Codes by name, (1, C, H, W) each, for ``pixels`` uint8 (3, H, W), RGB."""
    with np.load(path) as held:
        arrays = dict(held)
    codes: dict[str, np.ndarray] = {}
    for step in json.loads(str(arrays["graph"]))["operations"]:
        own = {key.rpartition(".")[2]: arrays[key] for key in arrays if key.rpartition(".")[0] == step["name"]}
        inputs = [codes[name].astype(np.int64) for name in step["inputs"]] or [pixels[None].astype(np.int64)]
        codes[step["name"]] = STEPS[step["op"]](step, own, *inputs).astype(step["dtype"])
    return codes


def convolution(step, own, x):
    """Integer sums, then one rounding: ``clamp(rint(float32(sum) * multiplier) + zero_point, low, high)``."""
    (sy, sx), (py, px), (dy, dx), groups = (step[key] for key in ("stride", "padding", "dilation", "groups"))
    x = np.pad(x - step["input_zero_point"], ((0, 0), (0, 0), (py, py), (px, px)))
    weight = own["weight"].astype(np.int64).reshape(groups, -1, *own["weight"].shape[1:])
    *_, high, wide = weight.shape
    rows = (x.shape[2] - dy * (high - 1) - 1) // sy + 1
    columns = (x.shape[3] - dx * (wide - 1) - 1) // sx + 1
    x, total = x.reshape(groups, -1, *x.shape[2:]), 0
    for i, j in np.ndindex(high, wide):
        taps = x[:, :, i * dy :: sy, j * dx :: sx][:, :, :rows, :columns]
        total = total + np.einsum("goi,gihw->gohw", weight[..., i, j], taps)
    total = total.reshape(1, -1, rows, columns) + own["bias"].reshape(1, -1, 1, 1)
    steps = np.rint(total.astype(np.float32) * own["multiplier"].reshape(1, -1, 1, 1))
    return np.clip(steps + step["zero_point"], step["low"], step["high"])


def largest(step, own, x):
    """The largest code under each place of the kernel; what lies outside is the lowest code."""
    k, s, p = step["kernel"], step["stride"], step["padding"]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=step["low"])
    rows, columns = ((size - k) // s + 1 for size in x.shape[2:])
    return np.max([x[:, :, i : i + s * rows : s, j : j + s * columns : s] for i in range(k) for j in range(k)], 0)


def shuffled(step, own, x):
    """Groups of channels as squares of pixels."""
    f, (rows, columns) = step["factor"], x.shape[2:]
    x = x.reshape(1, -1, f, f, rows, columns).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(1, -1, f * rows, f * columns)


STEPS = {
    "image": lambda step, own, pixels: pixels + step["zero_point"],
    "convolution": convolution,
    "table": lambda step, own, x: own["table"][x - step["input_low"]],
    "table of two": lambda step, own, a, b: own["table"][a - step["input_low"], b - step["input_low"]],
    "concatenate": lambda step, own, *parts: np.concatenate(parts, step["axis"]),
    "slice": lambda step, own, x: x[:, step["start"] : step["stop"]],
    "reshape": lambda step, own, x: x.reshape(1, *step["shape"]),
    "enlarge": lambda step, own, x: x.repeat(step["factor"], 2).repeat(step["factor"], 3),
    "pixel shuffle": shuffled,
    "max pool": largest,
}

if __name__ == "__main__":
    for name, value in run(sys.argv[1], np.load(sys.argv[2])).items():
        print(f"{name}: {value.shape} {value.dtype}, {value.min()} to {value.max()}")
