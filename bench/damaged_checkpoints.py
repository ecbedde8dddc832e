"""Damaged and hostile checkpoints: how many are refused with one line, and that none runs anything.

    python -m bench.damaged_checkpoints [--count 1000] [--seed 0] [--json FILE]

A small detector is written in both formats of torch.save. Each trial damages one copy: a bit of the file or of its
pickle is flipped, the file is cut short, opcodes of the pickle are taken out, doubled or exchanged, or a call of
``os.system`` is put between two of them. Whatever still loads must be a detector, since a flipped bit may lie in a
name or, in the older format, which has no checksums, in a weight.
"""

from __future__ import annotations

import argparse
import io
import os
import pickletools
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fxqat
from bench.command import parser, run
from fxqat.errors import Problem
from fxqat.models.load import build

ARCHITECTURE: dict[str, Any] = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C2f", [8, True]], [-1, 1, "SPPF", [8, 5]]],
    "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 0], 1, "Detect", ["nc"]]],
}
PICKLE = "archive/data.pkl"


def main() -> int:
    """Print the table."""
    options = parser("damaged_checkpoints", __doc__)
    options.add_argument("--count", type=int, default=1000, help="trials in all (default 1000)")
    options.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    return run(options.parse_args(), measure)


def measure(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count the outcomes of each kind of damage, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        counts = trials(Path(folder), options.count, options.seed)
    outcomes = sorted({outcome for row in counts.values() for outcome in row})
    print(f"{'damage':<28}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for damage, row in counts.items():
        print(f"{damage:<28}" + "".join(f"{row[outcome]:>10}" for outcome in outcomes))
    return {damage: dict(row) for damage, row in counts.items()}


def trials(folder: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """``count`` damaged checkpoints, written into ``folder`` and loaded one after another.

    Returns:
        For each kind of damage, how many were refused and how many loaded.

    Raises:
        Exception: what ``fxqat.load`` raised beside Problem; nothing may.
        AssertionError: code of a checkpoint ran.
    """
    dice, marker = random.Random(seed), folder / "ran"
    formats = {"zip": written(zipped=True), "legacy": written(zipped=False)}
    kinds = [(name, kind) for name in formats for kind in DAMAGES]
    counts: dict[str, Counter[str]] = {f"{name}, {kind}": Counter() for name, kind in kinds}
    path = folder / "damaged.pt"
    for trial in range(count):
        name, kind = kinds[trial % len(kinds)]
        path.write_bytes(DAMAGES[kind](formats[name], dice, marker))
        counts[f"{name}, {kind}"][outcome(path)] += 1
        if marker.exists():
            raise AssertionError(f"trial {trial} ({name}, {kind}) ran code")
    return counts


def outcome(path: Path) -> str:
    """``refused`` with one line, or ``loaded``."""
    try:
        fxqat.load(path)
    except Problem as problem:
        if "\n" in str(problem):
            raise
        return "refused"
    return "loaded"


def written(*, zipped: bool) -> bytes:
    """A checkpoint as Ultralytics writes it, of a small detector."""
    model, _ = build(ARCHITECTURE)
    file = io.BytesIO()
    torch.save({"epoch": 3, "model": model.half(), "ema": None}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def flip(data: bytes, dice: random.Random, marker: Path) -> bytes:
    """One bit of the file changed."""
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, dice: random.Random, marker: Path) -> bytes:
    """The file without its end."""
    return data[: dice.randrange(1, len(data))]


def flip_pickle(data: bytes, dice: random.Random, marker: Path) -> bytes:
    """One to eight bits of the pickle changed, with right checksums around it."""
    words = bytearray(pickle_of(data))
    for _ in range(dice.randint(1, 8)):
        words[dice.randrange(len(words))] ^= 1 << dice.randrange(8)
    return with_pickle(data, bytes(words))


def splice(data: bytes, dice: random.Random, marker: Path) -> bytes:
    """Two runs of opcodes of the pickle exchanged, or one taken out or doubled."""
    words = pickle_of(data)
    starts = [place for _, _, place in pickletools.genops(words) if place]
    a, b, c, d = sorted(dice.choice(starts) for _ in range(4))
    head, first, middle, second, tail = words[:a], words[a:b], words[b:c], words[c:d], words[d:]
    parts = dice.choice([(second, middle, first), (first, middle), (middle, second), (first, first, middle, second)])
    return with_pickle(data, head + b"".join(parts) + tail)


def call(data: bytes, dice: random.Random, marker: Path) -> bytes:
    """``os.system`` called between two opcodes, and its result dropped."""
    words, command = pickle_of(data), f"touch {marker}".encode()
    place = dice.choice([start for _, _, start in pickletools.genops(words) if start])
    text = b"X" + len(command).to_bytes(4, "little") + command
    return with_pickle(
        data, words[:place] + f"c{os.system.__module__}\nsystem\n".encode() + text + b"\x85R0" + words[place:]
    )


def pickle_of(data: bytes) -> bytes:
    """The pickle of the checkpoint's object, in either format."""
    start, end = _extent(data)
    return data[start:end] if start else zipfile.ZipFile(io.BytesIO(data)).read(PICKLE)


def with_pickle(data: bytes, words: bytes) -> bytes:
    """The checkpoint with another pickle."""
    start, end = _extent(data)
    if start:
        return data[:start] + words + data[end:]
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, words if name == PICKLE else old.read(name))
    return file.getvalue()


def _extent(data: bytes) -> tuple[int, int]:
    """Where the fourth pickle of the older format begins and ends, after magic number, version and machine; (0, 0) in
    the newer format."""
    if data.startswith(b"PK"):
        return 0, 0
    file, ends = io.BytesIO(data), [0]
    for _ in range(4):
        list(pickletools.genops(file))
        ends.append(file.tell())
    return ends[3], ends[4]


DAMAGES: dict[str, Callable[[bytes, random.Random, Path], bytes]] = {
    "bit of the file": flip,
    "cut short": cut,
    "bits of the pickle": flip_pickle,
    "opcodes exchanged": splice,
    "a call put in": call,
}

if __name__ == "__main__":
    sys.exit(main())
