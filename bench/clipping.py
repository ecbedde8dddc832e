"""Which ranges may cut the largest values: ``python -m bench.clipping --weights W.pt --train D --data V``.

A policy is calibrated once. Then one group of its activation quantizers after another chooses its ranges anew with the
largest values kept (``clip: low``), all others with any value cut (``clip: both``), and the divergence of the outputs
from the float ones is compared, image by image, with that of cutting everywhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

import fxqat
from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.graph.site import covers
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.sensitivity.output_divergence import FloatOutputs, shown, summary

GROUPS: Mapping[str, tuple[str, ...]] = {  # globs of sites in YOLOv8 of any scale, P3 to P5
    "class branches": ("model.22.cv3.**",),
    "class and box branches": ("model.22.cv[23].**",),
    "neck and head": ("model.[12]?.**",),
    "layers 5 and later": ("model.[5-9].**", "model.[12]?.**"),
    "layers 0 to 4": ("model.[0-4].**",),
    "all": ("**",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure group by group, print each as it is done; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    apart = FloatOutputs(fxqat.load(options.weights), options.data, count=options.images, imgsz=options.imgsz)
    prepared, _ = fxqat.prepare(fxqat.load(options.weights), options.policy)
    model = fxqat.calibrate(prepared, options.train, images_limit=options.calibrate, imgsz=options.imgsz)
    free = choosing(QuantGraph(model.gm).quantizers())
    let(free.values(), "both")
    base = apart.of(model)
    print("| kept in | quantizers | divergence, nats | change |\n| --- | --- | --- | --- |")
    rows = [_row("none", 0, base, base)]
    for name in GROUPS:
        group = [free[site] for site in members(name, free)]
        let(group, "low")
        found = apart.of(model)
        let(group, "both")
        rows.append(_row(name, len(group), found, base))
    return {"versions": versions(), "rows": rows}


def _row(name: str, count: int, found: Tensor, base: Tensor) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kept": name,
        "quantizers": count,
        "divergence": summary(found),
        "change": summary(found - base),
    }
    print(f"| {name} | {count} | {shown(row['divergence'])} | {shown(row['change'])} |", flush=True)
    return row


def members(group: str, sites: Iterable[str]) -> list[str]:
    """Those of ``sites`` that are in the group of that name."""
    return [site for site in sites if any(covers(glob, site) for glob in GROUPS[group])]


def choosing(fakes: Mapping[str, FakeQuantize]) -> dict[str, FakeQuantize]:
    """Those whose ranges are of least error of the values themselves, or of those after a SiLU.

    A range before a sigmoid stays as the policy has it: large values are all the same after it.
    """
    return {
        site: fake
        for site, fake in fakes.items()
        if fake.spec.method == "mse" and fake.spec.observer == "histogram" and fake.spec.through != "sigmoid"
    }


def let(fakes: Iterable[FakeQuantize], clip: str) -> None:
    """Let ``fakes`` choose their ranges anew from what they saw, with ``clip`` (see QuantSpec)."""
    for fake in fakes:
        fake.activation_post_process.clip = clip
        fake.update_qparams()


def _parser() -> argparse.ArgumentParser:
    made = parser("clipping", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--train", required=True, metavar="D", help="data set YAML to calibrate on")
    made.add_argument("--data", required=True, metavar="V", help="data set YAML; its val split is compared")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--calibrate", type=int, default=96, metavar="N", help="images (default: %(default)s)")
    made.add_argument("--images", type=int, default=48, help="of the val split (default: %(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
