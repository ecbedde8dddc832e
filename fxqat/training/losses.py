"""Losses: Ultralytics' task loss, a float teacher's, and a penalty on rounding; each part logged by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.errors import Problem
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.quant.modules import QATConv2d, QATLinear

# isort: split
from ultralytics.utils.loss import v8DetectionLoss

Raw = Mapping[str, Any]
Parts = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the parts of the loss; a part of weight 0 is not computed.

    Attributes:
        task: Ultralytics' detection loss, with its own gains ``box``, ``cls`` and ``dfl``.
        distill: the teacher's class probabilities and box distributions.
        features: the teacher's feature maps (the head's inputs), beside ``distill``.
        penalty: the rounding error of the weights.
        penalty_warmup: share of the training over which the penalty rises from 0.
        focal: gamma of the focal loss in the class branch of the task loss; 0 is Ultralytics' own.

    Raises:
        ValueError: a negative weight, a share outside 0..1, or nothing to minimise.
    """

    task: float = 1.0
    distill: float = 0.0
    features: float = 0.0
    penalty: float = 0.0
    penalty_warmup: float = 0.3
    focal: float = 0.0

    def __post_init__(self) -> None:
        for name in ("task", "distill", "features", "penalty", "focal"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} is not legal, expected 0 or more")
        if not 0 <= self.penalty_warmup <= 1:
            raise ValueError(f"penalty_warmup: {self.penalty_warmup!r} is not legal, expected 0 to 1")
        if not self.task + self.distill + self.features:
            raise ValueError("task: 0 is not legal where distill and features are 0 too, expected something to learn")

    @property
    def needs_teacher(self) -> bool:
        """Whether a part compares with the float network."""
        return self.distill > 0 or self.features > 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a loss may look at.

    Attributes:
        raw: boxes (B, 4 * bins, A), scores (B, nc, A) logits, feats: maps (B, C, H, W).
        batch: Ultralytics' batch; img (B, 3, H, W) in 0..1.
        gm: the graph in training.
        progress: share of the training that is done, 0..1.
    """

    raw: Raw
    batch: Mapping[str, Any]
    gm: nn.Module
    progress: float = 0.0


class Part(Protocol):
    """One part of the loss."""

    def __call__(self, seen: Seen) -> Parts:
        """Scalars to add up, by the name under which they are logged."""


class TaskLoss:
    """Ultralytics' v8DetectionLoss: box (CIoU), class and DFL, a mean over the batch.

    Args:
        model: as Ultralytics' DetectionModel; its ``args`` give the gains.
        focal: gamma of the focal loss for the classes, 0 for none.
    """

    def __init__(self, model: Any, focal: float = 0.0) -> None:
        self.criterion = v8DetectionLoss(model)
        if focal:
            self.criterion.bce = FocalLoss(gamma=focal)

    def __call__(self, seen: Seen) -> Parts:
        """box_loss, cls_loss and dfl_loss."""
        _, losses, items = self.criterion.get_assigned_targets_and_loss(seen.raw, seen.batch)
        return dict(zip(items, losses, strict=True))


class FocalLoss(nn.Module):
    """Binary cross entropy that looks away from what is easy: ``(1 - p_t)**gamma * BCE`` (Lin et al. 2017,
    arXiv:1708.02002, eq. 4), ``p_t = y p + (1 - y)(1 - p)`` also for soft labels y.

    Args:
        gamma: 0 is plain cross entropy.
        alpha: weight of positives, ``alpha y + (1 - alpha)(1 - y)``; None weighs all alike.
    """

    def __init__(self, gamma: float = 1.5, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Elementwise loss, shape of ``logits``; ``labels`` in 0..1."""
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        p = logits.sigmoid()
        loss = loss * (1 - (labels * p + (1 - labels) * (1 - p))) ** self.gamma
        return loss if self.alpha is None else loss * (labels * self.alpha + (1 - labels) * (1 - self.alpha))


class DistillationLoss:
    """Divergence from a float teacher that sees the same images; no label is needed.

    With w the teacher's largest class probability at an anchor::

        distill_cls = sum_a w_a sum_c KL(p_t || p_s)            / sum_a w_a      (Bernoulli, each class)
        distill_box = sum_a w_a mean over 4 sides KL(d_t || d_s) / sum_a w_a      (d: the DFL's bins)
        distill_feat = mean over maps of |f_s - f_t|^2 / |f_t|^2

    All are 0 where student and teacher agree. The weight keeps the thousands of anchors that see nothing from
    drowning the few that do (Hinton et al. 2015, arXiv:1503.02531; for boxes Zheng et al. 2022, arXiv:2102.12252).

    Args:
        teacher: images to raw predictions; used without gradients.
        weight: of classes and boxes.
        features: weight of the feature maps.
    """

    def __init__(self, teacher: Callable[[Tensor], Raw], weight: float = 1.0, features: float = 0.0) -> None:
        self.teacher, self.weight, self.features = teacher, weight, features

    def __call__(self, seen: Seen) -> Parts:
        """The parts of weight above 0."""
        with torch.no_grad():
            target = self.teacher(seen.batch["img"])
        parts: Parts = {}
        if self.weight:
            parts.update({name: self.weight * value for name, value in _divergences(seen.raw, target).items()})
        if self.features:
            maps = zip(seen.raw["feats"], target["feats"], strict=True)
            errors = [F.mse_loss(mine, theirs) / theirs.square().mean().clamp(min=1e-12) for mine, theirs in maps]
            parts["distill_feat"] = self.features * torch.stack(errors).mean()
        return parts


class QATPenaltyLoss:
    """Pulls weights towards their codes: the mean over layers of ``mean(((w - q(w)) / scale)^2) * 12``.

    ``w`` is the folded weight. 1 is the error of weights spread evenly between codes, whatever bits and scale are. It
    rises linearly over the first ``warmup`` share of the training: early on, rounding is not yet decided.
    """

    def __init__(self, weight: float, warmup: float = 0.3) -> None:
        self.weight, self.warmup = weight, warmup

    def __call__(self, seen: Seen) -> Parts:
        """The penalty; nothing where no weight is quantized."""
        errors = [_rounding(layer) for layer in quantized_layers(seen.gm)]
        if not errors:
            return {}
        ramp = min(1.0, seen.progress / self.warmup) if self.warmup else 1.0
        return {"penalty": self.weight * ramp * torch.stack(errors).mean()}


class ComposedLoss:
    """The sum of parts.

    Attributes:
        progress: share of the training that is done, for parts that change with it.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts, self.progress = tuple(parts), 0.0

    def __call__(self, raw: Raw, batch: Mapping[str, Any], gm: nn.Module) -> tuple[Tensor, Parts]:
        """The sum times the batch size, as Ultralytics' losses are, and the detached parts by name."""
        seen = Seen(raw=raw, batch=batch, gm=gm, progress=self.progress)
        found: Parts = {}
        for part in self.parts:
            found.update(part(seen))
        total = torch.stack(list(found.values())).sum() * len(batch["img"])
        return total, {name: value.detach() for name, value in found.items()}


def build_loss_function(
    config: LossConfig | Mapping[str, float], *, model: Any, teacher: Callable[[Tensor], Raw] | None = None
) -> ComposedLoss:
    """The loss that ``config`` describes.

    Args:
        config: or its fields as a mapping.
        model: as Ultralytics' DetectionModel, for the task loss.
        teacher: images to the float network's raw predictions.

    Raises:
        Problem: a field or value that is not legal, or a part that needs a teacher without one.
    """
    if not isinstance(config, LossConfig):
        try:
            config = LossConfig(**config)
        except (TypeError, ValueError) as error:
            raise Problem("loss", str(error), expected=f"fields of LossConfig: {', '.join(_FIELDS)}") from error
    parts: list[Part] = [TaskLoss(model, config.focal)] if config.task else []
    if config.task not in (0.0, 1.0):
        parts = [_Weighted(parts[0], config.task)]
    if config.needs_teacher:
        if teacher is None:
            raise Problem("loss", "distillation needs a teacher", remedy="give the float detector as teacher")
        parts.append(DistillationLoss(teacher, config.distill, config.features))
    if config.penalty:
        parts.append(QATPenaltyLoss(config.penalty, config.penalty_warmup))
    return ComposedLoss(parts)


@dataclass(frozen=True)
class _Weighted:
    part: Part
    weight: float

    def __call__(self, seen: Seen) -> Parts:
        return {name: self.weight * value for name, value in self.part(seen).items()}


def quantized_layers(gm: nn.Module) -> list[QATConv2d | QATLinear]:
    """Layers whose weight is being quantized."""
    layers = [layer for layer in gm.modules() if isinstance(layer, QATConv2d | QATLinear)]
    return [layer for layer in layers if layer.weight_fake_quant is not None and layer.weight_fake_quant.quantizing]


def raw_predictions(view: fx.GraphModule) -> Callable[[Tensor], Raw]:
    """A graph that gives raw predictions as a teacher, in eval mode."""
    frozen = view.eval().requires_grad_(False)
    return frozen


def _divergences(student: Raw, teacher: Raw) -> Parts:
    p = teacher["scores"].sigmoid()
    weight = p.amax(1)
    weight = weight / weight.sum().clamp(min=1e-12)
    classes = F.binary_cross_entropy_with_logits(student["scores"], p, reduction="none")
    classes = classes - F.binary_cross_entropy_with_logits(teacher["scores"], p, reduction="none")
    sides = [raw["boxes"].unflatten(1, (4, -1)).log_softmax(2) for raw in (teacher, student)]
    boxes = (sides[0].exp() * (sides[0] - sides[1])).sum(2).mean(1)
    return {"distill_cls": (classes.sum(1) * weight).sum(), "distill_box": (boxes * weight).sum()}


def _rounding(layer: QATConv2d | QATLinear) -> Tensor:
    fake = layer.weight_fake_quant
    assert fake is not None
    weight, _ = layer._folded()
    scale = fake.scale.detach()
    if fake.ch_axis is not None:
        scale = scale.view(*(-1 if axis == fake.ch_axis else 1 for axis in range(weight.dim())))
    with torch.no_grad():
        rounded = fake.quantize(weight)
    return ((weight - rounded) / scale).square().mean() * 12


_FIELDS = tuple(LossConfig.__dataclass_fields__)
