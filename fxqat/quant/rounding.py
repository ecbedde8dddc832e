"""Learned rounding of one weight matrix: AdaRound's relaxation, from columns of input and target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fxqat.quant.pairs import bounding_weights, lower_overflowing
from fxqat.quant.spec import QParams

# The stretch of the rectified sigmoid (arXiv:2004.10568, eq. 23): wide enough to reach 0 and 1 with a gradient.
ZETA, GAMMA = 1.1, -0.1
# The regulariser's exponent falls from the first to the second after the warm-up (eq. 24), as in the paper.
BETA = (20.0, 2.0)
_WARM_UP = 0.2
_BATCH = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """Samples of what a layer multiplies.

    Attributes:
        inputs: float32 [groups, N, K], K values that one output is the sum of.
        targets: float32 [groups, N, outputs of a group], what the float network has there, before the activation.
    """

    inputs: Tensor
    targets: Tensor

    def part(self, at: Tensor | slice) -> Columns:
        """Some of the samples."""
        return Columns(inputs=self.inputs[:, at], targets=self.targets[:, at])

    def __len__(self) -> int:
        return self.inputs.shape[1]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long and how hard to learn.

    Attributes:
        iterations: steps of Adam.
        learning_rate: of Adam; the paper's 1e-3 takes 10,000 steps.
        regularisation: weight of ``mean(1 - |2h - 1|**beta)`` beside the error, which starts at 1.
        seed: of the columns' order.
    """

    iterations: int = 400
    learning_rate: float = 0.02
    regularisation: float = 1.0
    seed: int = 0


@torch.no_grad()
def learn_codes(
    weight: Tensor,
    bias: Tensor | None,
    qparams: QParams,
    columns: Columns,
    groups: int,
    activation: Callable[[Tensor], Tensor],
    options: Options,
    *,
    pairs: Tensor | None = None,
) -> tuple[Tensor, float]:
    """Codes of ``weight`` that bring ``f(W x + b)`` nearest to ``f(target)``, each one of the two next to it.

    Minimises ``mean((f(W(V) x + b) - f(target))**2) + regularisation * mean(1 - |2 h(V) - 1|**beta)`` with
    ``W(V) = scale * (floor(w / scale) + h(V))`` and ``h(V) = clamp(1.2 * sigmoid(V) - 0.1, 0, 1)``. The largest and the
    smallest weight of each range keep the code that they have, so the range keeps its scale.

    Args:
        weight: folded, float32 [outputs, inputs of a group, ...].
        bias: folded, float32 [outputs], or None.
        qparams: of the weight.
        columns: a quarter is held back to judge by.
        groups: of the convolution.
        activation: ``f``.
        options: how long.
        pairs: int64 (P, 2), of weights whose products a kernel adds in 16 bits: their codes keep the bound
            (``fxqat.quant.pairs``), which the nearest codes are taken to do.

    Returns:
        int32 codes in the shape of ``weight``, and the share of the held-back error that they remove compared with
        rounding to nearest; where that is not positive the codes are the nearest ones and the share is 0.
    """
    grid = _Grid(weight, qparams, torch.empty(0, 2, dtype=torch.int64) if pairs is None else pairs)
    held = max(len(columns) // 4, 1)
    order = torch.randperm(len(columns), generator=torch.Generator().manual_seed(options.seed))
    judge, teach = columns.part(order[:held]), columns.part(order[held:])
    layer = _Loss(bias, groups, activation)
    learned = _learned(grid, layer, teach, options)
    before, after = (float(layer(grid.values(codes), judge)) for codes in (grid.nearest, learned))
    if not after < before:
        return grid.nearest.to(torch.int32), 0.0
    return learned.to(torch.int32), 1 - after / before


def multiply(inputs: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Outputs [groups, N, outputs of a group] of a weight [outputs, ...] for columns [groups, N, K]."""
    matrix = weight.reshape(groups, weight.shape[0] // groups, -1)
    # a batch of one is no faster than 1 GFLOP/s in torch's bmm; the plain product is fifty times that
    products = (inputs[0] @ matrix[0].t())[None] if groups == 1 else inputs @ matrix.transpose(1, 2)
    return products if bias is None else products + bias.view(groups, 1, -1)


class _Grid:
    """The codes around a weight. Codes are float32 here, relative to nothing: 0 is the lowest type's zero code."""

    def __init__(self, weight: Tensor, qparams: QParams, pairs: Tensor) -> None:
        shape = (-1, *[1] * (weight.dim() - 1))
        self.scale, self.zero = qparams.scale.view(shape), qparams.zero_point.view(shape).float()
        self.ends = (float(qparams.quant_min), float(qparams.quant_max))
        exact = weight / self.scale
        self.nearest = (exact.round() + self.zero).clamp(*self.ends)
        self.low = (exact.floor() + self.zero).clamp(*self.ends)
        self.rest = (exact - exact.floor()).clamp(0.01, 0.99)
        self.exact, self.pairs = exact, pairs
        self.kept = _extremes(weight, per_channel=qparams.axis is not None)
        self.kept |= bounding_weights(weight, pairs, qparams.scale)

    def values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero) * self.scale

    def between(self, h: Tensor) -> Tensor:
        """Codes for roundings ``h`` in 0..1."""
        return torch.where(self.kept, self.nearest, (self.low + h).clamp(*self.ends))

    def bounded(self, codes: Tensor) -> Tensor:
        """Codes whose pairs keep the bound of 16-bit sums."""
        return lower_overflowing(codes, self.exact, self.pairs, self.kept) if len(self.pairs) else codes


class _Loss:
    def __init__(self, bias: Tensor | None, groups: int, activation: Callable[[Tensor], Tensor]) -> None:
        self.bias, self.groups, self.activation = bias, groups, activation

    def __call__(self, weight: Tensor, columns: Columns) -> Tensor:
        outputs = multiply(columns.inputs, weight, self.bias, self.groups)
        return (self.activation(outputs) - self.activation(columns.targets)).square().mean()

    def gradient(self, weight: Tensor, columns: Columns) -> Tensor:
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_()
            return torch.autograd.grad(self(leaf, columns), leaf)[0]


def _learned(grid: _Grid, loss: _Loss, columns: Columns, options: Options) -> Tensor:
    """Codes after ``options.iterations`` steps."""
    # the start is the weight itself, not yet rounded: h(V) is its distance from the code below
    v = torch.logit((grid.rest - GAMMA) / (ZETA - GAMMA))
    adam = _Adam(v, options.learning_rate)
    generator = torch.Generator().manual_seed(options.seed + 1)
    unit = float(loss(grid.values(grid.nearest), columns).clamp(min=1e-12))
    for step in range(options.iterations):
        some = columns.part(torch.randint(len(columns), (min(_BATCH, len(columns)),), generator=generator))
        sigmoid = torch.sigmoid(v)
        h = _rectified(sigmoid)
        gradient = loss.gradient(grid.values(grid.between(h)), some).mul_(grid.scale / unit)
        beta = _beta(step / options.iterations)
        if beta is not None:
            gradient.add_(_rounding_force(h, beta), alpha=-options.regularisation / h.numel())
        adam.step(gradient.mul_(_slope(sigmoid)).masked_fill_(grid.kept, 0.0))
    return grid.bounded(grid.between((rectified_sigmoid(v) >= 0.5).float()))


def _rounding_force(h: Tensor, beta: float) -> Tensor:
    """The derivative of ``|2h - 1|**beta``."""
    distance = h.mul(2).sub_(1)
    return distance.abs().pow_(beta - 1).mul_(distance.sign_()).mul_(2 * beta)


def _slope(sigmoid: Tensor) -> Tensor:
    """The derivative of :func:`rectified_sigmoid` where it is not clamped, by the value of the sigmoid."""
    inside = (sigmoid > -GAMMA / (ZETA - GAMMA)) & (sigmoid < (1 - GAMMA) / (ZETA - GAMMA))
    return sigmoid.sub(sigmoid.square()).mul_(ZETA - GAMMA).mul_(inside)


class _Adam:
    """Kingma and Ba 2015, arXiv:1412.6980, for one tensor; torch.optim's import alone costs seconds."""

    def __init__(self, parameter: Tensor, rate: float) -> None:
        self.parameter, self.rate, self.steps = parameter, rate, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.mean.lerp_(gradient, 0.1)
        self.square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        root = self.square.div(1 - 0.999**self.steps).sqrt_().add_(1e-8)
        self.parameter.addcdiv_(self.mean, root, value=-self.rate / (1 - 0.9**self.steps))


def rectified_sigmoid(v: Tensor) -> Tensor:
    """``clamp(sigmoid(v) * (zeta - gamma) + gamma, 0, 1)``, eq. 23."""
    return _rectified(torch.sigmoid(v))


def _rectified(sigmoid: Tensor) -> Tensor:
    return (sigmoid * (ZETA - GAMMA) + GAMMA).clamp_(0, 1)


def _beta(progress: float) -> float | None:
    """The exponent of the regulariser, or None in the warm-up, when only the error counts."""
    if progress < _WARM_UP:
        return None
    first, last = BETA
    left = 1 - (progress - _WARM_UP) / (1 - _WARM_UP)
    return last + (first - last) * left


def _extremes(weight: Tensor, *, per_channel: bool) -> Tensor:
    """Where the lowest and the highest weight of each range are."""
    flat = weight.flatten(1) if per_channel else weight.flatten()[None]
    ends = (flat == flat.amin(1, keepdim=True)) | (flat == flat.amax(1, keepdim=True))
    return ends.view_as(weight)
