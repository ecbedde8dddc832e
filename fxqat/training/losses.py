"""Losses: Ultralytics' task loss, a float teacher's, and a penalty on rounding; each part logged by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxqat.errors import Problem
from fxqat.models.family import Family, RawOutput, branch_losses, features
from fxqat.models.links import divergences
from fxqat.quant.modules import QATConv2d, QATLinear

Raw = Any
Parts = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the parts of the loss; a part of weight 0 is not computed.

    Attributes:
        task: Ultralytics' loss of the task, with its own gains (``box``, ``cls`` ...).
        distill: the teacher's predictions, see ``fxqat.models.links``.
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

    @property
    def needs_labels(self) -> bool:
        """Whether a part compares with the train split's labels."""
        return self.task > 0


@dataclass(frozen=True, kw_only=True, eq=False)
class LossInputs:
    """What a loss may look at.

    Attributes:
        raw: raw predictions, as the model's family has them.
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

    def __call__(self, seen: LossInputs) -> Parts:
        """Scalars to add up, by the name under which they are logged."""


class TaskLoss:
    """Ultralytics' own loss of the task, a mean over the batch: of a head with two branches that of both.

    Args:
        model: a Trainee; its ``args`` give the gains.
        focal: gamma of the focal loss for the classes, 0 for none.
        weight: of all its parts.

    Raises:
        Problem: a focal loss for a task without class logits of anchors.
    """

    def __init__(self, model: Any, focal: float = 0.0, weight: float = 1.0) -> None:
        self.weight, source = weight, model.detector.source
        self.family: Family = source.family
        self.criterion: Any = self.family.criterion(model, source.head_spec)
        if focal:
            for one in branch_losses(self.criterion):
                _check_focal(one, self.family)
                one.bce = FocalLoss(gamma=focal)

    def __call__(self, seen: LossInputs) -> Parts:
        """Ultralytics' parts by their names: ``box_loss``, ``cls_loss`` ..."""
        total, items = self.criterion(self.family.for_loss(seen.raw), seen.batch)
        losses = self.weight * total.reshape(-1) / self.family.loss_times(len(seen.batch["img"]))
        return dict(zip(items, losses, strict=True))

    def update(self) -> None:
        """Ultralytics' own change from epoch to epoch: of a head with two branches from the one to the other."""
        if hasattr(self.criterion, "update"):
            self.criterion.update()


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

    One part for each raw output, a mean over images of fxqat.models.links.divergences: for detection ``distill_cls``
    (Bernoulli, each class) and ``distill_box`` (the distributions of a box's sides); and::

        distill_feat = mean over maps of |f_s - f_t|^2 / |f_t|^2

    All are 0 where student and teacher agree. The weight of an anchor keeps the thousands that see nothing from
    drowning the few that do (Hinton et al. 2015, arXiv:1503.02531; for boxes Zheng et al. 2022, arXiv:2102.12252).

    Args:
        teacher: images to raw predictions; used without gradients.
        outputs: what is compared.
        weight: of the raw outputs.
        features: weight of the feature maps.
    """

    def __init__(
        self,
        teacher: Callable[[Tensor], Raw],
        outputs: Sequence[RawOutput],
        weight: float = 1.0,
        features: float = 0.0,
    ) -> None:
        self.teacher, self.outputs, self.weight, self.features = teacher, tuple(outputs), weight, features

    def __call__(self, seen: LossInputs) -> Parts:
        """The parts of weight above 0."""
        with torch.no_grad():
            target = self.teacher(seen.batch["img"])
        parts: Parts = {}
        if self.weight:
            found = divergences(self.outputs, target, seen.raw)
            for output in self.outputs:
                name = "_".join(("distill", *output.branch, output.loss))
                parts[name] = self.weight * found[".".join(output.path)].mean()
        if self.features:
            maps = zip(features(seen.raw), features(target), strict=True)
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

    def __call__(self, seen: LossInputs) -> Parts:
        """The penalty; nothing where no weight is quantized."""
        errors = [_rounding(layer) for layer in quantized_layers(seen.gm)]
        if not errors:
            return {}
        ramp = min(1.0, seen.progress / self.warmup) if self.warmup else 1.0
        return {"penalty": self.weight * ramp * torch.stack(errors).mean()}


class ComposedLoss:
    """The sum of parts.

    Args:
        parts: in the order in which they are logged.
        times: how often Ultralytics' trainer is given the mean over a batch of so many images, see
            ``Family.loss_times``.

    Attributes:
        progress: share of the training that is done, for parts that change with it.
    """

    def __init__(self, parts: Sequence[Part], times: Callable[[int], int] = int) -> None:
        self.parts, self.times, self.progress = tuple(parts), times, 0.0

    def __call__(self, raw: Raw, batch: Mapping[str, Any], gm: nn.Module) -> tuple[Tensor, Parts]:
        """The sum as often as Ultralytics' loss of the task counts it, and the detached parts by name."""
        seen = LossInputs(raw=raw, batch=batch, gm=gm, progress=self.progress)
        found: Parts = {}
        for part in self.parts:
            found.update(part(seen))
        total = torch.stack(list(found.values())).sum() * self.times(len(batch["img"]))
        return total, {name: value.detach() for name, value in found.items()}

    def update(self) -> None:
        """What Ultralytics' trainer calls at the end of an epoch."""
        for part in self.parts:
            if isinstance(part, TaskLoss):
                part.update()


def build_loss_function(
    config: LossConfig | Mapping[str, float], *, model: Any, teacher: Callable[[Tensor], Raw] | None = None
) -> ComposedLoss:
    """The loss that ``config`` describes.

    Args:
        config: or its fields as a mapping.
        model: a Trainee.
        teacher: images to the float network's raw predictions.

    Raises:
        Problem: a field or value that is not legal, or a part that needs a teacher without one.
    """
    if not isinstance(config, LossConfig):
        try:
            config = LossConfig(**config)
        except (TypeError, ValueError) as error:
            raise Problem("loss", str(error), expected=f"fields of LossConfig: {', '.join(_FIELDS)}") from error
    parts: list[Part] = [TaskLoss(model, config.focal, config.task)] if config.task else []
    if config.needs_teacher:
        if teacher is None:
            raise Problem("loss", "distillation needs a teacher", remedy="give the float detector as teacher")
        parts.append(DistillationLoss(teacher, model.detector.trained, config.distill, config.features))
    if config.penalty:
        parts.append(QATPenaltyLoss(config.penalty, config.penalty_warmup))
    return ComposedLoss(parts, model.detector.source.family.loss_times)


def quantized_layers(gm: nn.Module) -> list[QATConv2d | QATLinear]:
    """Layers whose weight is being quantized."""
    layers = [layer for layer in gm.modules() if isinstance(layer, QATConv2d | QATLinear)]
    return [layer for layer in layers if layer.weight_fake_quant is not None and layer.weight_fake_quant.quantizing]


def raw_predictions(view: fx.GraphModule) -> Callable[[Tensor], Raw]:
    """A graph that gives raw predictions as a teacher, in eval mode."""
    frozen = view.eval().requires_grad_(False)
    return frozen


def _check_focal(criterion: Any, family: Family) -> None:
    if not hasattr(criterion, "bce"):
        raise Problem("focal", f"the loss of {family.task} has no class branch of anchors", expected="focal=0")


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
