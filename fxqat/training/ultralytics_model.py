"""A detector as Ultralytics' trainer and validator see a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxqat.models.detector import Detector, cut
from fxqat.passes.fuse_quantized_silu import Quicken
from fxqat.training.validation_runtime import Predict

Losses = tuple[Tensor, dict[str, Tensor]]
Criterion = Callable[[dict[str, Any], dict[str, Any], nn.Module], Losses]


class Trainee(nn.Module):
    """The attributes and calls of Ultralytics' models around a Detector.

    A dict (a batch) gives ``loss(batch)``; images (B, 3, H, W) in 0..1 give the raw predictions in training and
    (predictions, raw predictions) in eval. The state dict is the graph's, each name after ``detector.gm.``. Copies
    have no criterion: the average of weights is validated, never trained.

    Args:
        detector: any stage that computes in float.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.task = detector.source.task
        self.criterion: Criterion | None = None
        self.names = dict(detector.names)
        self.nc = len(self.names)
        self.stride = torch.tensor(detector.source.stride)
        self.yaml = dict(detector.source.architecture)
        self.args: Any = None
        self.end2end = detector.source.head_spec.nms_free  # whether its rows are final, for Ultralytics' validators
        self._head = self._make_head()
        self._views: dict[bool, fx.GraphModule] = {}
        self._runtime: Predict | None = None

    @property
    def model(self) -> list[Any]:
        """What losses read of the last layer, ``model[-1]``."""
        self._head.stride = self.stride = self.stride.to(next(self.parameters()).device)
        return [self._head]

    def forward(self, batch: Any, **ignored: Any) -> Any:
        """Losses of a batch, or predictions for images."""
        if isinstance(batch, dict):
            return self.loss(batch)
        if self._runtime is not None and not self.training:
            return self._runtime(batch.float())
        return self._view()(batch)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> Losses:
        """The loss to minimise, multiplied by the batch size as Ultralytics does, and its detached parts by name.

        In eval there is no loss: what decides is the validated mAP.
        """
        if not self.training or self.criterion is None:
            return torch.zeros(1), {}
        raw = self.forward(batch["img"]) if preds is None else preds
        return self.criterion(raw, batch, self.detector.gm)

    @contextmanager
    def predicting(self, runtime: Predict | None) -> Iterator[None]:
        """Let ``runtime`` predict in eval, predictions alone; None changes nothing."""
        self._runtime = runtime
        try:
            yield
        finally:
            self._runtime = None

    def set_head_attr(self, **attributes: Any) -> None:
        """As Ultralytics': attributes of the head."""
        vars(self._head).update(attributes)

    def refresh(self) -> None:
        """Forget the views, after modules were exchanged."""
        self._views.clear()
        self._head = self._make_head()

    def _make_head(self) -> Any:
        source = self.detector.source
        return source.family.head(source.head_spec, self.stride, self.detector.gm)

    def __deepcopy__(self, memo: dict[int, Any]) -> Trainee:
        made = Trainee(copy.deepcopy(self.detector, memo))
        made.args, made.names, made.nc = self.args, dict(self.names), self.nc
        return made.train(self.training)

    def _view(self) -> fx.GraphModule:
        """The graph for the present mode, fewer steps, sharing every module with state."""
        if self.training not in self._views:
            gm = self.detector.gm
            view = cut(gm, 1) if self.training else fx.GraphModule(gm, copy.deepcopy(gm.graph))
            Quicken()(view)
            self._views[self.training] = view
        return self._views[self.training]
