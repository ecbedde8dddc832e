"""Where the time of an ONNX file goes in ONNX Runtime, operation by operation of the graph that it really executes:
``python -m bench.profile X.onnx``.

Prints the share of time by kind of operation, then the slowest operations with the site that each computes.
``--json F`` keeps every number. A session that profiles is a few percent slower; shares are what counts.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from bench.command import parser, run
from fxqat.commands.arguments import image_size
from fxqat.errors import Problem
from fxqat.evaluation.latency_worker import feed
from fxqat.models.image_size import ImageSize

CODES = ".codes"
# What ONNX Runtime adds to the name of an operation that it replaces.
_ADDED = re.compile(r"_(token_\d+|nhwc)$")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One node of the optimized graph: its kind, the site whose value it computes, and its median microseconds."""

    kind: str
    site: str
    microseconds: float


def profile(path: Path, *, threads: int = 2, runs: int = 30, imgsz: ImageSize | None = None) -> list[Operation]:
    """Every operation of the optimized graph, in the order of execution.

    Args:
        path: an ONNX file.
        threads: ``intra_op_num_threads``.
        runs: measured after three that are not.
        imgsz: of the images, for a file that leaves the size open.

    Raises:
        Problem: the file is missing or cannot be run.
    """
    if not path.is_file():
        raise Problem(path, "no such file", expected="an ONNX model")
    with tempfile.TemporaryDirectory(prefix="fxqat-profile-") as folder:
        events = _events(path, Path(folder), threads, runs, imgsz)
    names = sites(onnx.load(path))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name != event["name"]:
            times[name, event["args"]["op_name"]].append(event["dur"])
    return [
        Operation(kind=kind, site=names.get(_ADDED.sub("", name), name), microseconds=statistics.median(each[3:]))
        for (name, kind), each in times.items()
    ]


def _events(path: Path, folder: Path, threads: int, runs: int, imgsz: ImageSize | None) -> list[Mapping[str, Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs = feed(session, imgsz.shape if imgsz else ())
    except Exception as error:  # ONNX Runtime raises a type of its own for each way a file can be wrong
        raise Problem(path, f"ONNX Runtime cannot run it: {str(error).splitlines()[0]}") from error
    for _ in range(runs + 3):
        session.run(None, inputs)
    events: list[Mapping[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def sites(proto: onnx.ModelProto) -> dict[str, str]:
    """The site of each operation of a file by the operation's name: what its quantized output is called, once it is
    back in the order of axes that others read."""
    codes = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    moves = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type in ("Transpose", "Reshape")}
    found = {}
    for node in proto.graph.node:
        value = codes.get(node.output[0], node.output[0])
        while value.startswith(f"{node.name}.") and value in moves:
            value = moves[value]
        found[node.name] = value.removesuffix(CODES)
    return found


def by_kind(operations: Sequence[Operation]) -> list[tuple[str, int, float]]:
    """(kind, count, microseconds of all), the slowest first."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in operations:
        found[one.kind].append(one.microseconds)
    return sorted(((kind, len(each), sum(each)) for kind, each in found.items()), key=lambda row: -row[2])


def table(operations: Sequence[Operation], rows: int) -> str:
    """Two Markdown tables: by kind, and the slowest operations."""
    total = sum(one.microseconds for one in operations)
    lines = ["| operation | count | ms | share |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {kind} | {count} | {us / 1e3:.2f} | {us / total:.1%} |" for kind, count, us in by_kind(operations)]
    lines += [f"| all | {len(operations)} | {total / 1e3:.2f} | |", "", "| site | operation | ms | share |"]
    lines.append("| --- | --- | ---: | ---: |")
    slowest = sorted(operations, key=lambda one: -one.microseconds)[: rows or None]
    lines += [
        f"| {one.site} | {one.kind} | {one.microseconds / 1e3:.2f} | {one.microseconds / total:.1%} |"
        for one in slowest
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile, print, and write the JSON where asked; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = profile(Path(options.model), threads=options.threads, runs=options.runs, imgsz=options.imgsz)
    print(table(found, options.rows))
    return [asdict(one) for one in found]


def _parser() -> argparse.ArgumentParser:
    made = parser("profile", __doc__)
    made.add_argument("model", metavar="MODEL.onnx")
    made.add_argument("--threads", type=int, default=2, help="threads of the session (default: %(default)s)")
    made.add_argument("--runs", type=int, default=30, help="measured runs (default: %(default)s)")
    made.add_argument("--rows", type=int, default=20, help="slowest operations to print; 0: all (default: 20)")
    made.add_argument("--imgsz", type=image_size, help="image size, where the model leaves it free (default: 640)")
    return made


if __name__ == "__main__":
    sys.exit(main())
