"""Every architecture of Ultralytics' zoo, the whole way: ``python -m bench.zoo [--only yolo11] [--scales nsm]``.

Each is built with random weights and the batch norm statistics of real images, prepared, calibrated, converted,
exported and verified. A row says how much of the multiply-adds is in integers, how many codes differ between reference
graph and runtime, and how long it took; or why the architecture is refused. Ends with exit code 1 where a code differs
or a program error stops one. Small images (``--imgsz``) suffice: what can go wrong is in the graph.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import fxqat
from bench.command import parser, run
from bench.living import write_living
from fxqat.data import images
from fxqat.errors import Problem
from fxqat.models import offline
from fxqat.runtime.reference.int8_summary import account
from fxqat.workflow.verify import verify

# Folders of its architectures, by its names for them.
_FOLDERS = ("v3", "v5", "v6", "v8", "v9", "v10", "11", "12", "26", "rt-detr")


def main(arguments: Sequence[str] | None = None) -> int:
    """Go the whole way with each; exit code 2 for bad input."""
    options = _parser().parse_args(arguments)
    bad: list[str] = []
    code = run(options, lambda given: _measured(given, bad))
    if bad:
        print(f"{len(bad)} did not end as they should: {', '.join(bad)}", file=sys.stderr)
    return code or int(bool(bad))


def _measured(options: argparse.Namespace, bad: list[str]) -> list[dict[str, Any]]:
    print(
        "| architecture | integer multiply-adds | codes | differing | s |",
        "| --- | ---: | ---: | ---: | ---: |",
        sep="\n",
    )
    rows = []
    for name in options.weights or list(architectures(options.scales)):
        if options.only and options.only not in name:
            continue
        rows.append(row := _row(name, options))
        if row.get("differing") or "failed" in row:
            bad.append(row["name"])
        print(_line(row), flush=True)
    return rows


def architectures(scales: str) -> Iterator[str]:
    """Names of Ultralytics' architectures, those with scales in each of ``scales``."""
    offline.quiet()
    import ultralytics

    root = Path(ultralytics.__file__).parent / "cfg" / "models"
    for folder in _FOLDERS:
        for path in sorted((root / folder).glob("*.yaml")):
            match = re.fullmatch(r"(yolo(?:e-)?v?\d+)(-.+)?", path.stem)
            if match and re.search(r"^scales:", path.read_text(), re.MULTILINE):
                yield from (f"{match[1]}{scale}{match[2] or ''}.yaml" for scale in scales)
            else:
                yield path.name


def _row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    row: dict[str, Any] = {"name": Path(name).stem}
    try:
        with tempfile.TemporaryDirectory(prefix="fxqat-zoo-") as folder:
            row |= _whole_way(name, Path(folder), options)
    except Problem as problem:
        row["refused"] = str(problem)
    except Exception as error:  # a program error in one is a row, not the end of the others
        row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return row | {"seconds": time.perf_counter() - start}


def _whole_way(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    batch = next(images.batches(images.image_paths(options.data, limit=4), options.imgsz, 4))
    source = Path(name)
    if source.suffix != ".pt":
        fxqat.load(name)  # refused as for a user, where Ultralytics' YOLO() does not take it either
        source = write_living(name, folder / "model.pt", batch)
    qat, _ = fxqat.prepare(fxqat.load(source), options.policy, target=options.target)
    qat = fxqat.calibrate(qat, [batch])
    int8, _ = fxqat.convert(qat)
    file = fxqat.export(int8, folder / f"int8{options.suffix}", imgsz=options.imgsz)
    found = verify(qat, file, [batch[:1], batch[1:2]], imgsz=options.imgsz).total("reference_runtime")
    return {"share": account(int8.gm).share, "codes": found.codes, "differing": found.differing}


def _line(row: dict[str, Any]) -> str:
    if said := row.get("refused", row.get("failed")):
        return f"| {row['name']} | {'FAILED: ' if 'failed' in row else ''}{said} | | | {row['seconds']:.0f} |"
    return f"| {row['name']} | {row['share']:.1%} | {row['codes']} | {row['differing']} | {row['seconds']:.0f} |"


def _parser() -> argparse.ArgumentParser:
    made = parser("zoo", __doc__)
    made.add_argument("--data", default="coco128.yaml", metavar="D.yaml", help="images to calibrate on")
    made.add_argument("--only", metavar="TEXT", help="architectures whose name holds this")
    made.add_argument("--weights", nargs="+", metavar="FILE.pt", help="checkpoints in place of architectures")
    made.add_argument("--scales", default="n", help="of n, s, m, l, x (default: %(default)s)")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--target", metavar="T", help="default: the policy's")
    made.add_argument("--suffix", default=".onnx", help="of the file (default: %(default)s)")
    made.add_argument("--imgsz", type=int, default=128)
    return made


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
