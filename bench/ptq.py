"""Calibration methods x corrections: ``python -m bench.ptq --weights yolov8n.pt --calibration D --data V [--json F]``.

For each shipped policy and each row of the table: mAP50-95 of the exported ONNX in ONNX Runtime against the float model
exported by the same code (same images, paired bootstrap); how far the fake-quantized graph's raw output is from the
float one's (fxqat.models.links, nats, mean and standard error over ``--divergence`` images of V), which no
label decides; and the processor time of calibration and corrections against plain forwards of the same images.
``--only TEXT`` (may be given again) runs the rows whose label holds TEXT.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml

import fxqat
from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.data import images
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, evaluate, from_onnx
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.policy import Policy
from fxqat.search.range_tuning import before_silu, largest_cut, largest_kept
from fxqat.sensitivity.output_divergence import FloatOutputs, shown, summary

POLICIES = ("critical", "w8a8")
CORRECTIONS: dict[str, list[Any]] = {
    "none": [],
    "bias sequential": [{"bias_correction": {"order": "sequential"}}],
    "bias parallel": [{"bias_correction": {"order": "parallel"}}],
    "bias plain mean": [{"bias_correction": {"weighted": False}}],
    "adaround": ["adaround"],
    "adaround + bias sequential": ["adaround", {"bias_correction": {"order": "sequential"}}],
}
_COLUMNS = (
    "policy",
    "method",
    "corrections",
    "mAP50-95",
    "against float, points [95 %]",
    "divergence, nats",
    "calibrate",
    "corrections take",
)
# Every method without corrections, every correction with the shipped method.
SHIPPED = "shipped"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    policy: str
    method: str
    correction: str

    @property
    def label(self) -> str:
        """As ``--only`` sees it."""
        return f"{self.policy} / {self.method} / {self.correction}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure row by row, print each as it is done; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measure)


def rows(policies: Iterable[str], only: Sequence[str]) -> list[Row]:
    """The table's rows: methods without corrections, and corrections with the shipped method."""
    corrections = [name for name in CORRECTIONS if name != "none"]
    found = []
    for policy in policies:
        methods = METHODS | OF_LOGITS if _has_integer_logits(policy) else METHODS
        every = [*product(methods, ["none"]), *product([SHIPPED], corrections)]
        found += [Row(policy=policy, method=method, correction=name) for method, name in every]
    return [row for row in found if not only or any(text in row.label for text in only)]


def _has_integer_logits(policy: str) -> bool:
    content = yaml.safe_load(Policy.load(policy).text)
    return not any(rule.get("role") == "box_out" and rule.get("float") for rule in content["rules"])


def changed(policy: str, method: str, correction: str) -> Policy:
    """A shipped policy with other specs and corrections."""
    content: dict[str, Any] = yaml.safe_load(Policy.load(policy).text)
    (METHODS | OF_LOGITS)[method](content)
    content["corrections"] = CORRECTIONS[correction]
    return Policy.parse(yaml.safe_dump(content, sort_keys=False), f"{policy} {method}")


def _every_activation(**change: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        weights = {rule.get("weight") for rule in content["rules"]}
        for name, spec in content["specs"].items():
            if name not in weights:
                for searched in ("through", "clip"):
                    spec.pop(searched, None)
                spec.update({"method": "standard"} | change)

    return apply


def _logits(role: str, **change: Any) -> Callable[[dict[str, Any]], None]:
    """The last convolutions of the head's branches for boxes (``box_out``) or classes (``class_out``): with such
    ranges, or in float."""
    spec = f"{role} logits"

    def apply(content: dict[str, Any]) -> None:
        if change:
            content["specs"][spec] = {"observer": "histogram", "method": "mse"} | change
        how = {"weight": "weights", "activation": spec} if change else {"float": True}
        mine = {"role": role, "op": "QATConv2d", **how}
        content["rules"] = [mine, *(rule for rule in content["rules"] if rule.get("role") != role)]

    return apply


METHODS: dict[str, Callable[[dict[str, Any]], None]] = {
    SHIPPED: lambda content: None,
    "standard": _every_activation(observer="minmax"),
    "moving average": _every_activation(observer="moving_average", averaging_constant=0.1),
    "percentile": _every_activation(observer="histogram", method="percentile"),
    "entropy": _every_activation(observer="histogram", method="entropy"),
    "mse, not through SiLU": before_silu,
    "largest values kept": largest_kept,
    "largest values cut": largest_cut,
}
# Only for a policy whose last convolutions run in integers.
OF_LOGITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "class logits by mse": _logits("class_out", method="mse"),
    "class logits in float": _logits("class_out"),
    "box logits by mse": _logits("box_out", method="mse"),
    "box logits by percentile 99.99": _logits("box_out", method="percentile", percentile=99.99),
    "box logits through SiLU": _logits("box_out", through="silu"),
    "box logits in float": _logits("box_out"),
}


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    todo = rows(options.policy or POLICIES, options.only)
    if not todo:
        raise Problem("--only", f"{options.only} names no row", remedy="leave it out to see every label")
    with tempfile.TemporaryDirectory(prefix="fxqat-ptq-") as folder:
        path = Path(folder) / "model.onnx"
        base = _accuracy(fxqat.export(fxqat.load(options.weights), path, imgsz=options.imgsz), options)
        plain = _plain_forwards(options)
        print(f"float: mAP50-95 {base.map5095:.4f}; plain forwards {plain:.1f} s of processor time")
        print(f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}", flush=True)
        apart = FloatOutputs(fxqat.load(options.weights), options.data, count=options.divergence, imgsz=options.imgsz)
        results = [_row(row, path, base, plain, apart, options) for row in todo]
    return {"versions": versions(), "base": base.map5095, "plain_seconds": plain, "rows": results}


def _row(
    row: Row, path: Path, base: Accuracy, plain: float, apart: FloatOutputs, options: argparse.Namespace
) -> dict[str, Any]:
    prepared, _ = fxqat.prepare(fxqat.load(options.weights), changed(row.policy, row.method, row.correction))
    marks = [time.process_time()]
    calibrated = fxqat.calibrate(
        prepared,
        options.calibration,
        images_limit=options.images,
        imgsz=options.imgsz,
        on_step=lambda name: marks.append(time.process_time()),
    )
    marks.append(time.process_time())
    # the first mark after the start is where the first correction began, or the end
    seconds, corrected = marks[1] - marks[0], marks[-1] - marks[1]
    distance = summary(apart.of(calibrated))
    found = _accuracy(fxqat.export(calibrated, path, imgsz=options.imgsz), options)
    drift = paired_drift(base, found)
    cells = (
        f"{found.map5095:.4f}",
        str(drift),
        shown(distance),
        f"{seconds / plain:.2f}x",
        f"{corrected / plain:.2f}x",
    )
    print(f"| {' | '.join((row.policy, row.method, row.correction, *cells))} |", flush=True)
    return {
        **asdict(row),
        "map5095": found.map5095,
        "drift": asdict(drift),
        "divergence": distance,
        "calibrate_seconds": seconds,
        "correction_seconds": corrected,
        "reports": calibrated.recipe.calibration.get("corrections", []),
    }


def _accuracy(path: Path, options: argparse.Namespace) -> Accuracy:
    return evaluate(from_onnx(path), options.data, imgsz=options.imgsz, limit=options.images_val)


@torch.no_grad()
def _plain_forwards(options: argparse.Namespace) -> float:
    """Processor seconds of the float graph over the calibration images, reading them included."""
    model = fxqat.load(options.weights)
    start = time.process_time()
    for batch in images.batches(images.image_paths(options.calibration, limit=options.images), options.imgsz, 8):
        model(batch)
    return time.process_time() - start


def _parser() -> argparse.ArgumentParser:
    made = parser("ptq", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--calibration", required=True, metavar="D", help="images to calibrate on")
    made.add_argument("--data", required=True, metavar="V", help="data set YAML to evaluate on")
    made.add_argument("--policy", action="append", metavar="P", help="may be given again (default: the two shipped)")
    made.add_argument("--only", action="append", default=[], metavar="TEXT", help="rows whose label holds it")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--images", type=int, help="calibrate on so many (default: all)")
    made.add_argument("--images-val", type=int, help="evaluate on so many (default: all)")
    made.add_argument("--divergence", type=int, default=64, help="images for it (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
