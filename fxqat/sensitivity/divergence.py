"""How far a detector's output is from another's: the distance that distillation minimises, and random directions in
which it can be felt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Raw = Mapping[str, Any]
SIDES = 4


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The distance of a quantized network's output from the float one's, mean over images.

    Attributes:
        divergence: nats, see ``divergence``.
        boxes_sqnr: of the box logits, dB.
        scores_sqnr: of the class logits, dB.
    """

    divergence: float
    boxes_sqnr: float
    scores_sqnr: float


def divergence(teacher: Raw, student: Raw) -> Tensor:
    """The distance from ``teacher`` to ``student``, nats, shape (B,).

    With w_a the teacher's largest class probability at anchor a as a part of their sum over the image::

        D = sum_a w_a (sum_c KL(p_t || p_s) + mean over 4 sides KL(d_t || d_s))

    p are class probabilities (Bernoulli), d the distributions of the box's sides over their bins. It is what training
    calls ``distill_cls + distill_box``: 0 where both agree, and nothing is asked of the thousands of empty anchors.

    Args:
        teacher: boxes (B, 4 * bins, A) and scores (B, nc, A), logits.
        student: the same of the other network.
    """
    p = teacher["scores"].sigmoid()
    weight = _weight(p)
    classes = F.binary_cross_entropy_with_logits(student["scores"], p, reduction="none")
    classes = classes - F.binary_cross_entropy_with_logits(teacher["scores"], p, reduction="none")
    mine, theirs = _sides(student), _sides(teacher)
    boxes = (theirs.exp() * (theirs - mine)).sum(2).mean(1)
    return ((classes.sum(1) + boxes) * weight).sum(1)


def directions(raw: Raw, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random r for boxes and scores, shapes of the logits, with ``E[(r . dz)^2] / 2 = D`` for small changes dz.

    To second order a divergence is ``dz' F dz / 2`` with F the Fisher information, which is the covariance of the
    score function of a label drawn from the network's own prediction (Martens 2020, arXiv:1412.1193, section 5):
    ``r = sqrt(w) (y - p)`` with y drawn from Bernoulli(p), or one of a side's bins drawn from its distribution.
    """
    p = raw["scores"].sigmoid()
    weight = _weight(p).sqrt().unsqueeze(1)
    drawn = (torch.rand(p.shape, generator=generator) < p).float()
    chances = _sides(raw).exp()  # (B, 4, bins, A)
    bins = chances.cumsum(2)
    ticket = torch.rand((*chances.shape[:2], 1, chances.shape[3]), generator=generator) * bins[:, :, -1:]
    one = F.one_hot((bins < ticket).sum(2).clamp(max=chances.shape[2] - 1), chances.shape[2]).movedim(3, 2)
    boxes = (one - chances).flatten(1, 2) / SIDES**0.5
    return boxes * weight, (drawn - p) * weight


def _weight(p: Tensor) -> Tensor:
    confidence = p.amax(1)
    return confidence / confidence.sum(1, keepdim=True).clamp(min=1e-12)


def _sides(raw: Raw) -> Tensor:
    sides: Tensor = raw["boxes"].unflatten(1, (SIDES, -1)).log_softmax(2)
    return sides
