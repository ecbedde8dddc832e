"""What augmentation does to the tensors that were calibrated: ``python -m bench.augmentation --weights W.pt --data D
--other V``.

A policy's ranges are calibrated on the train split as inference sees it. The same images, augmented as a training would
have them, are then shown to the float arithmetic, and every quantized tensor's mean, spread and share of clipped values
are compared with those of inference. What other images of the same kind do, seen as inference sees them, is the scale.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

import fxqat
from bench.command import parser, run
from bench.training_set import AUGMENTATION, COLOURS, PLACES, as_ultralytics, training_set
from fxqat.checkpoint.fxqat_format import versions
from fxqat.data import images
from fxqat.passes.calibrate import before_silu
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.spec import QParams
from fxqat.quant.torch_ao import disable_fake_quant
from fxqat.sensitivity.error_statistics import Tally
from fxqat.training.config import RECIPE

PLAIN: Mapping[str, Any] = dict.fromkeys(AUGMENTATION, 0.0)
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "fxqat's recipe": RECIPE,
    "colours as Ultralytics": {**PLAIN, **as_ultralytics(*COLOURS)},
    "scale and translate as Ultralytics": {**PLAIN, **as_ultralytics(*PLACES)},
    "mosaic": {**PLAIN, **as_ultralytics("mosaic")},
    "Ultralytics' defaults": as_ultralytics(*AUGMENTATION),
}


@dataclass(kw_only=True)
class TensorStatistics:
    """One tensor: the sum of its values, and the rest as a Tally of no error has it."""

    total: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def add(self, x: Tensor) -> None:
        """Take in ``x``."""
        self.total += float(x.sum(dtype=torch.float64))
        self.tally.add(x, torch.zeros_like(x))

    @property
    def mean(self) -> float:
        """Of the values."""
        return self.total / self.tally.count

    @property
    def spread(self) -> float:
        """Their standard deviation."""
        return max(self.tally.signal / self.tally.count - self.mean**2, 0.0) ** 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure recipe by recipe, print each as it is done; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    prepared, _ = fxqat.prepare(fxqat.load(options.weights), options.policy)
    model = fxqat.calibrate(prepared, options.data, images_limit=options.images, imgsz=options.imgsz)
    model.gm.apply(disable_fake_quant)
    base = seen(model.gm, _as_inference(options, options.data, "train"))
    print("| images | mean moved by, spreads: median | 95 % | spread | 95 % | clipped | 95 % |\n| --- |" + " --- |" * 6)
    other = seen(model.gm, _as_inference(options, options.other, "val"))
    rows = [_row("as inference", base, base), _row("other images, as inference", other, base)]
    for name, recipe in RECIPES.items():
        rows.append(_row(name, seen(model.gm, _augmented(options, recipe)), base))
    return {"versions": versions(), "rows": rows}


@torch.no_grad()
def seen(gm: fx.GraphModule, batches: Iterable[Tensor]) -> dict[str, TensorStatistics]:
    """Every activation quantizer's input by site, over ``batches`` of images (B, 3, H, W); before a SiLU the value
    after it is taken, which is all that the next layer sees."""
    found, hooks = dict[str, TensorStatistics](), []
    silu = before_silu(gm)
    for site, fake in QuantGraph(gm).quantizers().items():
        through = nn.functional.silu if fake in silu else nn.Identity()
        hooks.append(
            fake.register_forward_hook(_listener(found.setdefault(site, TensorStatistics()), fake.qparams(), through))
        )
    for batch in batches:
        gm(batch)
    for hook in hooks:
        hook.remove()
    return found


def _listener(into: TensorStatistics, qparams: QParams, through: Callable[[Tensor], Tensor]) -> Callable[..., None]:
    def listen(module: Any, given: tuple[Tensor], result: Tensor) -> None:
        into.tally.add_range(given[0], qparams)
        into.add(through(given[0]))

    return listen


def _as_inference(options: argparse.Namespace, data: str, split: str) -> Iterator[Tensor]:
    found = images.image_paths(data, split=split, limit=options.images)
    return images.batches(found, options.imgsz, options.batch)


def _augmented(options: argparse.Namespace, recipe: Mapping[str, Any]) -> Iterator[Tensor]:
    random.seed(options.seed)
    np.random.seed(options.seed)
    torch.manual_seed(options.seed)
    found = training_set(options.data, recipe, imgsz=options.imgsz, batch=options.batch)
    for start in range(0, min(options.images, len(found)), options.batch):
        chosen = [found[index]["img"] for index in range(start, min(start + options.batch, len(found)))]
        yield torch.stack(chosen).float() / 255


def _row(name: str, now: Mapping[str, TensorStatistics], base: Mapping[str, TensorStatistics]) -> dict[str, Any]:
    moved = [abs(now[site].mean - base[site].mean) / base[site].spread for site in base]
    widened = [now[site].spread / base[site].spread for site in base]
    clipped = [100 * now[site].tally.clipped for site in base]
    row = {
        "images": name,
        "moved": _ends(moved),
        "spread": [float(np.median(widened)), float(np.quantile(np.abs(np.array(widened) - 1), 0.95))],
        "clipped": _ends(clipped),
    }
    cells = [f"{one:.3f}" for one in row["moved"]]
    cells += [f"{row['spread'][0]:.3f}x", f"±{row['spread'][1]:.3f}", *(f"{one:.3f} %" for one in row["clipped"])]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return row


def _ends(values: Sequence[float]) -> list[float]:
    return [float(np.median(values)), float(np.quantile(values, 0.95))]


def _parser() -> argparse.ArgumentParser:
    made = parser("augmentation", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--data", required=True, metavar="D", help="data set YAML; its train split is augmented")
    made.add_argument("--other", required=True, metavar="V", help="data set YAML; its val split is the other images")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--images", type=int, default=128, help="of each split (default: %(default)s)")
    made.add_argument("--batch", type=int, default=8)
    made.add_argument("--seed", type=int, default=0)
    return made


if __name__ == "__main__":
    sys.exit(main())
