"""The divergence of one detector's raw outputs from another's: what distillation minimises and analysis measures; and
random directions in which it can be felt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Raw = Mapping[str, Any]
SIDES = 4


def divergence(teacher: Raw, student: Raw) -> Tensor:
    """The distance from ``teacher`` to ``student``, nats, shape (B,): the sum of ``divergences``."""
    return torch.stack(list(divergences(teacher, student).values())).sum(0)


def divergences(teacher: Raw, student: Raw) -> dict[str, Tensor]:
    """The distance from ``teacher`` to ``student`` in each raw output, nats, each of shape (B,).

    With w_a the teacher's largest class probability at anchor a as a part of their sum over the image::

        scores = sum_a w_a sum_c KL(p_t || p_s)                boxes = sum_a w_a mean over 4 sides KL(d_t || d_s)

    p are class probabilities (Bernoulli), d the distributions of the box's sides over their bins; a head of one bin
    gives distances in cells, which are taken as the means of normal distributions one cell wide:
    ``KL = (d_t - d_s)^2 / 2``. All are 0 where both agree, and nothing is asked of the thousands of empty anchors. An
    image's numbers do not depend on the batch that it is in.

    Args:
        teacher: boxes (B, 4 * bins, A) and scores (B, nc, A), logits.
        student: the same of the other network.
    """
    p = teacher["scores"].sigmoid()
    weight = _weight(p)
    classes = F.binary_cross_entropy_with_logits(student["scores"], p, reduction="none")
    classes = classes - F.binary_cross_entropy_with_logits(teacher["scores"], p, reduction="none")
    sides = _distances(teacher, student) if _has_one_bin(teacher) else _distributions(teacher, student)
    return {"scores": (classes.sum(1) * weight).sum(1), "boxes": (sides.mean(1) * weight).sum(1)}


def directions(raw: Raw, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random r for boxes and scores, shapes of the logits, with ``E[(r . dz)^2] / 2 = D`` for small changes dz.

    To second order a divergence is ``dz' F dz / 2`` with F the Fisher information, which is the covariance of the
    score function of a label drawn from the network's own prediction (Martens 2020, arXiv:1412.1193, section 5):
    ``r = sqrt(w) (y - p)`` with y drawn from Bernoulli(p), or one of a side's bins drawn from its distribution, or a
    distance drawn from the normal distribution around the one predicted.
    """
    p = raw["scores"].sigmoid()
    weight = _weight(p).sqrt().unsqueeze(1)
    drawn = (torch.rand(p.shape, generator=generator) < p).float()
    boxes = torch.randn(raw["boxes"].shape, generator=generator) if _has_one_bin(raw) else _surprise(raw, generator)
    return boxes / SIDES**0.5 * weight, (drawn - p) * weight


def _distributions(teacher: Raw, student: Raw) -> Tensor:
    """KL of each side's distribution over its bins, (B, 4, A)."""
    theirs, mine = _sides(teacher), _sides(student)
    return (theirs.exp() * (theirs - mine)).sum(2)


def _distances(teacher: Raw, student: Raw) -> Tensor:
    """KL of normal distributions of variance 1 around each side's distance, (B, 4, A)."""
    difference: Tensor = teacher["boxes"] - student["boxes"]
    return difference.square() / 2


def _surprise(raw: Raw, generator: torch.Generator) -> Tensor:
    """One of each side's bins, drawn, less the chances of all, (B, 4 * bins, A)."""
    chances = _sides(raw).exp()  # (B, 4, bins, A)
    bins = chances.cumsum(2)
    ticket = torch.rand((*chances.shape[:2], 1, chances.shape[3]), generator=generator) * bins[:, :, -1:]
    one = F.one_hot((bins < ticket).sum(2).clamp(max=chances.shape[2] - 1), chances.shape[2]).movedim(3, 2)
    return (one - chances).flatten(1, 2)


def _has_one_bin(raw: Raw) -> bool:
    return bool(raw["boxes"].shape[1] == SIDES)


def _weight(p: Tensor) -> Tensor:
    confidence = p.amax(1)
    return confidence / confidence.sum(1, keepdim=True).clamp(min=1e-12)


def _sides(raw: Raw) -> Tensor:
    sides: Tensor = raw["boxes"].unflatten(1, (SIDES, -1)).log_softmax(2)
    return sides
