"""Distances between two networks' raw outputs, by the link that makes predictions of them.

What distillation minimises and analysis measures is one quantity. With w_a the teacher's largest class probability at
anchor a, and z_o what a head's output o says there::

    D = sum over outputs o of sum_a w_a d_o(t_a, s_a) / sum_a w_a

d_o is a divergence in nats, 0 where both agree: of Bernoulli variables summed over channels, of categorical ones as a
mean over groups, of a Gaussian for plain numbers. The weight keeps the thousands of anchors that see nothing from
drowning the few that do. Outputs of the whole image count with weight 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxqat.models.family import Link, RawOutput

_LEAST = 1e-12  # of what is divided by
Weights = Mapping[tuple[str, ...], Tensor]


def confidences(outputs: Sequence[RawOutput], raw: Any) -> Weights:
    """The largest class probability at each anchor, (B, A), of each branch that has one."""
    return {one.branch: one.of(raw).sigmoid().amax(1) for one in outputs if one.confidence and one.anchored}


def divergence(outputs: Sequence[RawOutput], teacher: Any, student: Any) -> Tensor:
    """The distance from ``teacher`` to ``student``, nats, shape (B,): the sum of ``divergences``."""
    return torch.stack(list(divergences(outputs, teacher, student).values())).sum(0)


def divergences(outputs: Sequence[RawOutput], teacher: Any, student: Any) -> dict[str, Tensor]:
    """The distance from ``teacher`` to ``student`` in each output, nats, by its path, each of shape (B,).

    An image's numbers do not depend on the batch that it is in.

    Args:
        outputs: of both.
        teacher: raw predictions.
        student: raw predictions of the other network.
    """
    found: dict[str, Tensor] = {}
    weights = {key: _shares(one) for key, one in confidences(outputs, teacher).items()}
    for one in outputs:
        distance = DISTANCES[one.link](one, one.of(teacher), one.of(student))
        weight = weights.get(one.branch) if one.anchored else None
        found[".".join(one.path)] = _whole(distance) if weight is None else (distance * weight).sum(1)
    return found


def directions(outputs: Sequence[RawOutput], raw: Any, generator: torch.Generator) -> list[Tensor]:
    """Random r, one of the shape of each output, with ``E[(r . dz)^2] / 2 = D`` for small changes dz of one image.

    To second order a divergence is ``dz' F dz / 2`` with F the Fisher information, which is the covariance of the
    score function of a label drawn from the network's own prediction (Martens 2020, arXiv:1412.1193, section 5):
    ``r = sqrt(w) (y - p)`` with y drawn from Bernoulli(p), or one of a group's bins drawn from its distribution; for a
    Gaussian of variance v, ``r = sqrt(w) n / sqrt(v)`` with n a standard normal number.
    """
    weights = {key: _shares(one).sqrt() for key, one in confidences(outputs, raw).items()}
    found = []
    for one in reversed(outputs):
        z = one.of(raw).detach()
        drawn = DIRECTIONS[one.link](one, z, generator)
        weight = weights.get(one.branch) if one.anchored else None
        found.append(drawn / _places(z) ** 0.5 if weight is None else drawn * weight.unsqueeze(1))
    return found[::-1]


def _shares(weight: Tensor) -> Tensor:
    return weight / weight.sum(1, keepdim=True).clamp(min=_LEAST)


def _places(z: Tensor) -> int:
    """How many places of an image (B, C, ...) has."""
    return z[0, 0].numel()


def _whole(distance: Tensor) -> Tensor:
    """The mean over the places of an image, (B,)."""
    return distance.reshape(len(distance), -1).mean(1)


def _bernoulli(output: RawOutput, teacher: Tensor, student: Tensor) -> Tensor:
    p = teacher.sigmoid()
    apart = F.binary_cross_entropy_with_logits(student, p, reduction="none")
    apart = apart - F.binary_cross_entropy_with_logits(teacher, p, reduction="none")
    return apart.sum(1)


def _categorical(output: RawOutput, teacher: Tensor, student: Tensor) -> Tensor:
    theirs, mine = (_groups(output, z).log_softmax(2) for z in (teacher, student))
    return (theirs.exp() * (theirs - mine)).sum(2).mean(1)


def _gaussian(output: RawOutput, teacher: Tensor, student: Tensor) -> Tensor:
    return (student - teacher).square().mean(1) / (2 * _variance(output, teacher).squeeze(1))


def _groups(output: RawOutput, z: Tensor) -> Tensor:
    return z.unflatten(1, (output.groups, -1))


def _variance(output: RawOutput, z: Tensor) -> Tensor:
    """Of the Gaussian: of one cell for distances; of the teacher's own spread, per image, for plain numbers."""
    if output.link is Link.DISTANCE:
        return z.new_ones([z.shape[0]] + [1] * (z.dim() - 1))
    return z.square().mean(dim=list(range(1, z.dim())), keepdim=True).clamp(min=_LEAST)


def _drawn_bernoulli(output: RawOutput, z: Tensor, generator: torch.Generator) -> Tensor:
    p = z.sigmoid()
    return (torch.rand(p.shape, generator=generator) < p).float() - p


def _drawn_categorical(output: RawOutput, z: Tensor, generator: torch.Generator) -> Tensor:
    chances = _groups(output, z).softmax(2)
    bins = chances.cumsum(2)
    ticket = torch.rand((*chances.shape[:2], 1, *chances.shape[3:]), generator=generator) * bins[:, :, -1:]
    one = F.one_hot((bins < ticket).sum(2).clamp(max=chances.shape[2] - 1), chances.shape[2]).movedim(-1, 2)
    return (one - chances).flatten(1, 2) / output.groups**0.5


def _drawn_gaussian(output: RawOutput, z: Tensor, generator: torch.Generator) -> Tensor:
    normal = torch.randn(z.shape, generator=generator)
    return normal / (z.shape[1] * _variance(output, z)).sqrt()


DISTANCES: Mapping[Link, Callable[[RawOutput, Tensor, Tensor], Tensor]] = {
    Link.BERNOULLI: _bernoulli,
    Link.CATEGORICAL: _categorical,
    Link.DISTANCE: _gaussian,
    Link.PLAIN: _gaussian,
}
DIRECTIONS: Mapping[Link, Callable[[RawOutput, Tensor, torch.Generator], Tensor]] = {
    Link.BERNOULLI: _drawn_bernoulli,
    Link.CATEGORICAL: _drawn_categorical,
    Link.DISTANCE: _drawn_gaussian,
    Link.PLAIN: _drawn_gaussian,
}
