"""Latency of ONNX models on this machine, as a table: ``python -m bench.latency A.onnx B.onnx``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from bench.command import parser, run
from fxqat.commands.arguments import image_size
from fxqat.evaluation.latency import measure, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the JSON where asked; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    settings = {key: getattr(options, key) for key in ("threads", "rounds", "runs")}
    latencies = measure(options.models, imgsz=options.imgsz, **settings)
    print(table(latencies))
    return {**settings, "models": [item.summary() for item in latencies]}


def _parser() -> argparse.ArgumentParser:
    made = parser("latency", __doc__)
    made.add_argument("models", nargs="+", metavar="MODEL.onnx", help="the first is what the others are compared with")
    made.add_argument("--threads", type=int, default=2, help="threads of each session (default: %(default)s)")
    made.add_argument("--rounds", type=int, default=20, help="turns each model has (default: %(default)s)")
    made.add_argument("--runs", type=int, default=5, help="timed runs a turn (default: %(default)s)")
    made.add_argument("--imgsz", type=image_size, help="image size for models that leave it free (default: 640)")
    return made


if __name__ == "__main__":
    sys.exit(main())
