"""The trainer of calibrated detectors (QAT)."""

from __future__ import annotations

from typing import Any

from torch import nn, optim

from fxqat.passes.absorb_norms import AbsorbNorms, normed
from fxqat.passes.learn_scales import LearnScales, learned_scales
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import LSQFakeQuantize, use_kernels
from fxqat.quant.torch_ao import disable_observer
from fxqat.training.callbacks import observe_again
from fxqat.training.trainer import Trainer

RANGE_IMAGES = 32  # for freeze_observers


class QATTrainer(Trainer):
    """Trainer of a calibrated detector with fake quantization on.

    Observers are off, batch norm statistics are frozen as configured, and learned scales are a parameter group of their
    own.
    """

    def _prepare(self) -> None:
        self.trainee.apply(disable_observer)
        AbsorbNorms()(self.trainee.detector.gm)
        if self.plan.lsq:
            LearnScales()(self.trainee.detector.gm)
        self.compiled = use_kernels(self.trainee, self.plan.compile)
        self.trainee.refresh()

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> optim.Optimizer:
        """Ultralytics' optimizer, with learned scales in a group without weight decay; absorbed batch norm factors
        are not trained."""
        optimizer: optim.Optimizer = super().build_optimizer(model, *args, **kwargs)
        scales, factors = learned_scales(model), [layer.bn.weight.requires_grad_(False) for layer in normed(model)]
        chosen = {id(parameter) for parameter in (*scales, *factors)}
        for group in optimizer.param_groups:
            group["params"] = [one for one in group["params"] if id(one) not in chosen]
        if scales:
            rate = self.args.lr0 * self.plan.scale_rate
            optimizer.add_param_group({"params": scales, "lr": rate, "weight_decay": 0.0, "param_group": "scale"})
        return optimizer

    def _model_train(self) -> None:
        super()._model_train()
        gm = self.trainee.detector.gm
        if 0 < self.epoch < self.plan.freeze_observers * self.epochs:
            plain = [one for one in QuantGraph(gm).quantizers().values() if not isinstance(one, LSQFakeQuantize)]
            observe_again(self, gm, plain, RANGE_IMAGES)
        learning = self.epoch / self.epochs < self.plan.freeze_scales
        for scale in learned_scales(self.trainee):
            scale.requires_grad_(learning)
