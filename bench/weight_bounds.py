"""What weights within the 16-bit bound cost: ``python -m bench.weight_bounds --weights W.pt --train D --data V``.

A policy is calibrated once for ``ort-cpu-vnni`` (plain 8-bit weights). Then the scales of the weights are chosen in one
way after another, with the same ranges of activations, and the median divergence of the outputs from the float ones,
over images and draws (see ``_apply``), is compared with that of plain 8 bits. Nothing saturates here: this is exact
arithmetic.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import fxqat
from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.quant.modules import QATConv2d, QATLinear
from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import PAIR_MAX, pair_sums, partners
from fxqat.sensitivity.output_divergence import FloatOutputs, shown, summary

Layer = QATConv2d | QATLinear
Way = Callable[[Layer, Tensor], None]
ORDERS = (Order.ROWS, Order.PIXELS)
STEPS = 33
SPREAD = 0.03  # of scales between draws; three percent of noise at most


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure way by way, print each as it is done; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    reference = FloatOutputs(fxqat.load(options.weights), options.data, count=options.images, imgsz=options.imgsz)
    prepared, _ = fxqat.prepare(fxqat.load(options.weights), options.policy, target="ort-cpu-vnni")
    model = fxqat.calibrate(prepared, options.train, images_limit=options.calibrate, imgsz=options.imgsz)
    layers = [one for one in model.modules() if isinstance(one, Layer) and one.weight_fake_quant is not None]
    weights = [(layer.weight.detach().clone(), layer.folded()[0]) for layer in layers]
    print("| weights | their noise | divergence, nats | median, times plain |\n| --- | --- | --- | --- |")
    rows, base = list[dict[str, Any]](), None
    for name, way in WAYS.items():
        noise, found = 0.0, list[Tensor]()
        for draw in range(options.draws):
            for layer, (weight, _) in zip(layers, weights, strict=True):
                layer.weight.data = weight.clone()
            _apply(way, layers, draw)
            noise = noise or _noise(layers, weights)
            found.append(reference.of(model))
        base = base or (noise, torch.cat(found))
        rows.append(_row(name, noise / base[0], torch.cat(found), base[1]))
    return {"versions": versions(), "draws": options.draws, "rows": rows}


def _row(name: str, noise: float, found: Tensor, base: Tensor) -> dict[str, Any]:
    times = float(found.median() / base.median())
    row: dict[str, Any] = {"weights": name, "noise": noise, "divergence": summary(found), "median_ratio": times}
    print(f"| {name} | {noise:.2f} | {shown(row['divergence'])} | {times:.2f} |", flush=True)
    return row


@torch.no_grad()
def _noise(layers: Sequence[Layer], weights: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The squared error of all weights, each channel's as a part of its own square."""
    total = 0.0
    for layer, (_, exact) in zip(layers, weights, strict=True):
        error = layer._quantized(layer.folded()[0], None, None) - exact
        total += float((error.flatten(1).square().sum(1) / exact.flatten(1).square().sum(1).clamp(min=1e-30)).sum())
    return total


@torch.no_grad()
def _apply(way: Way, layers: Sequence[Layer], draw: int) -> None:
    """Quantize every layer's weight in one ``way``, each channel's scale stretched by a chance of its own, 0 to
    ``SPREAD``; draw 0 stretches none.

    Which weights are rounded up and which down is chance, and moves the divergence of one network by a third: many
    ways of rounding with the same noise are to be compared. A larger scale stays within the bound.
    """
    chance = torch.Generator().manual_seed(draw)
    for layer in layers:
        stretch = 1 + SPREAD * torch.rand(len(layer.weight), generator=chance)
        way(layer, stretch if draw else torch.ones_like(stretch))


def plain(layer: Layer, stretch: Tensor) -> None:
    """All codes of 8 bits."""
    _follow(layer, 8)
    _stretch(layer, stretch)


def _follow(layer: Layer, bits: int, orders: Sequence[Order] = ()) -> None:
    assert layer.weight_fake_quant is not None
    layer.quantize_weight(replace(layer.weight_fake_quant.spec, bits=bits, scale="fixed"), pair_orders=orders)


def _stretch(layer: Layer, stretch: Tensor) -> None:
    assert layer.weight_fake_quant is not None
    grid = layer.weight_fake_quant.qparams()
    _keep_scale(layer, grid.scale * stretch)


def _keep_scale(layer: Layer, scale: Tensor) -> None:
    """A scale that no longer follows the weight."""
    assert layer.weight_fake_quant is not None
    grid = layer.weight_fake_quant.qparams()
    layer.quantize_weight(replace(layer.weight_fake_quant.spec, scale="lsq"))
    layer.weight_fake_quant.load_qparams(replace(grid, scale=scale))


def seven_bits(layer: Layer, stretch: Tensor) -> None:
    """Half the codes: no pair can exceed the bound."""
    _follow(layer, 7)
    _stretch(layer, stretch)


def bounded(layer: Layer, stretch: Tensor) -> None:
    """The least scale of each channel that keeps every pair within the bound (as shipped)."""
    _follow(layer, 8, ORDERS)
    _stretch(layer, stretch)


@torch.no_grad()
def clipped(layer: Layer, stretch: Tensor) -> None:
    """A scale between plain and bounded with pairs above the bound moved onto it, by the least squared error."""
    _follow(layer, 8, ORDERS)
    fake, weight, pairs = layer.weight_fake_quant, layer.folded()[0], layer.pairs
    assert fake is not None
    most, rows = fake.scale.clone(), weight.flatten(1)
    least = rows.abs().amax(1) / fake.quant_max
    best, error = most, _error(rows, most, pairs)
    for share in torch.linspace(0, 1, STEPS):
        scale = least + (most - least) * share
        found = _error(rows, scale, pairs)
        best, error = torch.where(found < error, scale, best), torch.minimum(found, error)
    best = best * stretch
    codes = on_bound(rows / best[:, None], pairs)
    _fold_in(layer, (codes * best[:, None]).view_as(weight))
    _keep_scale(layer, best)


def on_bound(exact: Tensor, pairs: Tensor) -> Tensor:
    """Codes nearest to ``exact`` (M, N) whose pairs keep the bound; both of a pair give up half of the excess."""
    codes = exact.round().clamp(-127, 127)
    first, second = pairs.unbind(1)
    for _ in range(8):  # pairs that share a weight move it more than once
        a, b = partners(codes, pairs)
        over = pair_sums(codes, pairs) > PAIR_MAX
        if not bool(over.any()):
            break
        half = (exact[:, first].abs() - exact[:, second].abs() + PAIR_MAX) / 2
        mine = half.round().clamp(1, 127)
        codes[:, first] = torch.where(over, mine * a.sign(), codes[:, first])
        codes[:, second] = torch.where(over, (PAIR_MAX - mine) * b.sign(), codes[:, second])
    return codes


def _error(rows: Tensor, scale: Tensor, pairs: Tensor) -> Tensor:
    return (on_bound(rows / scale[:, None], pairs) * scale[:, None] - rows).square().sum(1)


def _fold_in(layer: Layer, weight: Tensor) -> None:
    """Give the layer a folded weight."""
    factor = layer._factor().view(-1, *[1] * (weight.dim() - 1)) if layer.bn is not None else 1.0
    layer.weight.data = weight / factor


@torch.no_grad()
def reordered(layer: Layer, stretch: Tensor) -> None:
    """The bounded scale with the best order of input channels found: large weights beside small ones or others' signs.

    An upper bound of what it can bring: every layer has an order of its own here, which no network can have.
    """
    _follow(layer, 8, ORDERS)
    weight = layer.folded()[0]
    if weight.shape[1] % 2 == 0 and not (isinstance(layer, QATConv2d) and layer.groups > 1):
        places = torch.arange(weight[0].numel()).view(weight.shape[1:])[best_order(weight)].flatten()
        layer.pairs = places[layer.pairs]
        layer.calibrate_weight()
    _stretch(layer, stretch)


def best_order(weight: Tensor) -> Tensor:
    """Input channels in an order whose neighbours exceed the bound least, found greedily from the worst channel on."""
    channels, limit = weight.shape[1], weight.flatten(1).abs().amax(1).view(-1, 1, 1) * (PAIR_MAX / 127)
    each = weight.transpose(0, 1).flatten(2)
    cost = torch.stack([_excess(one, each, limit[:, 0]) for one in each]).fill_diagonal_(torch.inf)
    left, order = torch.ones(channels, dtype=torch.bool), list[int]()
    for channel in cost.nan_to_num(posinf=0.0).sum(1).argsort(descending=True).tolist():
        if not left[channel]:
            continue
        left[channel] = False
        partner = int(cost[channel].masked_fill(~left, torch.inf).argmin())
        left[partner] = False
        order += [channel, partner]
    return torch.tensor(order)


def _excess(one: Tensor, others: Tensor, limit: Tensor) -> Tensor:
    """How far the pairs of a channel (M, taps) with each of the others (C, M, taps) exceed ``limit`` (M, 1)."""
    sums = torch.where(one.sign() == others.sign(), (one + others).abs(), 0)
    return ((sums / limit.clamp(min=1e-30)).amax(2) - 1).clamp(min=0).square().sum(1)


WAYS: Mapping[str, Way] = {
    "plain 8 bits": plain,
    "7 bits": seven_bits,
    "bounded: the least scale that fits (shipped)": bounded,
    "bounded, input channels in the best order of each layer": reordered,
    "clipped: pairs moved onto the bound": clipped,
}


def _parser() -> argparse.ArgumentParser:
    made = parser("weight_bounds", __doc__)
    made.add_argument("--weights", required=True, help="float checkpoint")
    made.add_argument("--train", required=True, help="data set YAML to calibrate on")
    made.add_argument("--data", required=True, help="data set YAML whose val split is compared on")
    made.add_argument("--policy", default="w8a8")
    made.add_argument("--calibrate", type=int, default=64, help="images (default: %(default)s)")
    made.add_argument("--images", type=int, default=36, help="of the val split (default: %(default)s)")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--draws", type=int, default=4, help="ways of rounding, each with the same noise (%(default)s)")
    return made


if __name__ == "__main__":
    sys.exit(main())
