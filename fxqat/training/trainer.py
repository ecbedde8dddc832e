"""The trainer of float and quantized detectors, a subclass of Ultralytics' trainer.

Data, augmentation, loss, validator and loop are Ultralytics'. Graph, saved state, and the comparison with epoch 0 are
ours.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, optim

from fxqat.data.class_folders import ClassFolders
from fxqat.data.dataset import DataSet
from fxqat.errors import Problem
from fxqat.files import locked
from fxqat.graph.pipeline import Pipeline
from fxqat.models import offline
from fxqat.models.detector import Detector, cut
from fxqat.models.family import Metric
from fxqat.passes.unquantize import Unquantize
from fxqat.quant.modules import freeze_bn_stats, update_bn_stats
from fxqat.training import resume_state
from fxqat.training.checks import check_same, widest_site
from fxqat.training.config import TrainingConfig
from fxqat.training.data import images_digest, ultralytics_data
from fxqat.training.distributed import launch
from fxqat.training.ema import AveragedModel
from fxqat.training.improvement import gain, keep
from fxqat.training.loading_trainer import LoadingTrainer
from fxqat.training.losses import build_loss_function, raw_predictions
from fxqat.training.schedules import QATLearningRateScheduler, make_schedule
from fxqat.training.ultralytics_model import Trainee
from fxqat.training.validation_runtime import runtime

# isort: split
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

Row = dict[str, Any]


class Trainer(LoadingTrainer):
    """Trainer of a Detector at any stage; a float detector is trained in FP32.

    The moving average (EMA) of the weights is validated once before training (epoch 0) and after each epoch, on images
    as ``fxqat val`` and an exported file see them. The result is the average of the best epoch, or the detector as
    given if no epoch is better than epoch 0. After each epoch the whole state is written to
    ``weights/state.safetensors`` in the run's folder.

    Made by ``create_trainer``.

    Attributes:
        history: one row an epoch, epoch 0 first: ``epoch``, ``map5095``, ``map50``, ``lr``, and the parts of the loss.
        best_epoch: of the highest validated mAP50-95.
        compiled: whether quantizers compute with compiled kernels.
        data_digest: hash of the names of the data set's images, by which a moved data set is recognised on resuming.
        phase: function from an epoch (0 is the first trained) to its phase, for a schedule that has phases.
    """

    plan: TrainingConfig
    given: Detector
    teacher: Detector | None
    resuming: bool
    history: list[Row]
    best_epoch: int
    kept: dict[str, Tensor]
    data_digest: str
    phase: Callable[[float], str] | None
    compiled: bool = False

    def __init__(self, cfg: Any = None, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        offline.provide_fonts()
        with offline.threads_kept():
            super().__init__(cfg or _defaults(), overrides, _callbacks)

    @property
    def metric(self) -> Metric:
        """The metric that decides which epoch is best."""
        return self.given.source.family.metric

    @property
    def state_file(self) -> Path:
        """The path of the state that is saved after each epoch."""
        return Path(self.wdir) / "state.safetensors"

    @property
    def trainee(self) -> Trainee:
        """The model in training."""
        found: Trainee = unwrap_model(self.model)
        return found

    def result(self) -> Detector:
        """The detector of the best epoch, in eval mode, with ``training`` in its recipe, and the gain there."""
        found = gain(self.wdir, self.best_epoch) if self.best_epoch else None
        return self._made(self.kept if self.best_epoch else {}, self.best_epoch, gain=found and asdict(found))

    def latest(self) -> Detector:
        """The detector of the last finished epoch, in eval mode, with ``training`` in its recipe."""
        return self._made(self._average(), len(self.history) - 1)

    def _made(self, tensors: dict[str, Tensor], epoch: int, **more: Any) -> Detector:
        made = copy.deepcopy(self.given)
        if tensors:
            made.gm.load_state_dict(tensors)
        return made.with_graph(made.gm, training={**self._record(epoch), **more}).eval()

    def _record(self, epoch: int) -> dict[str, Any]:
        """The record of the training in the recipe of the detector of ``epoch``."""
        summary = self.plan.summary()
        summary["data"] = Path(summary["data"]).name
        measured = [row["map5095"] for row in self.history]
        return {
            "config": summary,
            "compiled": self.compiled,
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "metric": self.metric.title,
            "map5095": measured,
        }

    # What Ultralytics calls.

    def train(self) -> None:
        """Train, in a process for each device where there are several, all started and joined by torch.distributed."""
        if RANK != -1:
            super().train()
            return
        with locked(self.save_dir, "another training"):
            launch(self) if self.ddp else super().train()
        if self.ddp:
            self._recall(resume_state.read(self.state_file))

    def check_resume(self, overrides: Any) -> None:
        """Disable Ultralytics' resuming, which needs pickled checkpoints; ours reads ``state_file``."""
        self.resume = False

    def get_dataset(self) -> dict[str, Any]:
        """Nothing yet, see ``use_data``."""
        return {}

    def use_data(self, found: DataSet | ClassFolders, *, labelled: bool) -> None:
        """Train and validate on ``found``, the data set as every command reads it; on its train split's labels where
        ``labelled``."""
        self.data_digest = images_digest(found)
        self.data = ultralytics_data(found, Path(self.save_dir), labelled=labelled)

    def setup_model(self) -> None:
        """Nothing: the detector is given."""

    def set_model_attributes(self) -> None:
        """Ultralytics' own, and the options, which losses read."""
        super().set_model_attributes()
        self.trainee.args = self.args

    def validate(self) -> Any:
        """Ultralytics' validation of the average, in the runtime that it is for where that is known: what is chosen by
        is what an exported file measures. Before training it is the detector as it was given: preparing it for
        training moves its last bits."""
        average: Trainee = self.ema.ema
        shown = average.detector if self.epoch >= 0 else copy.deepcopy(self.given).to(self.device)
        images = len(self.test_loader.dataset)
        with average.predicting(runtime(shown, images=images, size=self.plan.imgsz)):
            return super().validate()

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Ultralytics' names of loss parts; there are none in validation."""
        if prefix == "val":
            return [] if loss_items is None else {}
        return super().label_loss_items(loss_items, prefix)

    def plot_training_labels(self) -> None:
        """Nothing."""

    def _do_train(self) -> None:
        self.start_digest = resume_state.digest(self.given.gm.state_dict())
        if self.resuming:
            found = resume_state.read(self.state_file)
            check_same(found, self.start_digest, self.plan, self.data_digest, self.state_file)
            if found.epochs_done >= self.epochs:
                self._recall(found)
                return
        try:
            super()._do_train()
        except Problem as problem:
            if all(bool(torch.isfinite(one).all()) for one in self.trainee.parameters()):
                raise
            raise self._diverged(f"weights are no numbers any more ({problem.where}: {problem.what})") from problem

    def _setup_train(self) -> None:
        self._prepare()
        self.model.to(memory_format=torch.channels_last)  # a tenth faster on a CPU, as Ultralytics does on a GPU
        super()._setup_train()
        self.ema = AveragedModel(self.model)
        teacher = self._teacher() if self.plan.loss.needs_teacher else None
        self.trainee.criterion = build_loss_function(self.plan.loss, model=self.trainee, teacher=teacher)
        if self.resuming:
            self._restore(resume_state.read(self.state_file))
        else:
            self._validate_start()
        self.scheduler.last_epoch = self.start_epoch - 1

    def _setup_scheduler(self) -> None:
        schedule = make_schedule(self.plan.schedule, self.plan.schedule_options, epochs=self.epochs, last=self.args.lrf)
        self.phase = schedule.phase if isinstance(schedule, QATLearningRateScheduler) else None
        self.lf = lambda epoch: schedule(epoch, [row["map5095"] for row in self.history[1:]])
        self.history = []
        self.scheduler = optim.lr_scheduler.LambdaLR(self.optimizer, lr_lambda=self.lf)

    def _model_train(self) -> None:
        """The start of an epoch: everything random in it follows from the seed and its number."""
        seed = self.plan.seed * 100_003 + self.epoch
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        self.train_loader.reset()
        self.train_loader.generator.manual_seed(seed)
        share = self.epoch / self.epochs
        self.trainee.apply(freeze_bn_stats if share >= self.plan.freeze_bn else update_bn_stats)
        super()._model_train()
        self.trainee.criterion.progress = share  # type: ignore[union-attr]

    def optimizer_step(self) -> None:
        """Ultralytics' step, refused where the loss is no number.

        Raises:
            Problem: NaN or infinity, with the step and the site of the widest range.
        """
        if not bool(torch.isfinite(self.loss)):
            raise self._diverged(f"the loss is {float(self.loss.detach())}")
        super().optimizer_step()

    def _handle_nan_recovery(self, epoch: int) -> bool:
        return False

    def save_model(self) -> bool:
        """After an epoch: keep its average if it is the best, and write the state."""
        row = self._row(self.epoch + 1)
        row.update({name: float(value) for name, value in self.tloss.items()})
        self.history.append(row)
        if row["map5095"] > self.history[self.best_epoch]["map5095"]:
            self.best_epoch = row["epoch"]
            self.kept = self._average()
            keep(self.validator, self.given.source.family, self.wdir, self.best_epoch)
        try:
            resume_state.write(self.state_file, self._state())
        except Problem as problem:
            raise Problem(problem.where, problem.what, remedy=self._going_on(len(self.history) - 2)) from problem
        return True

    def final_eval(self) -> None:
        """Nothing: every epoch was validated."""

    def plot_metrics(self) -> None:
        """Nothing."""

    # Ours.

    def _prepare(self) -> None:
        """Change the graph before anything refers to its parameters."""

    def _teacher(self) -> Callable[[Tensor], Any]:
        source = self.teacher or self.given
        view, _ = Pipeline((Unquantize(),)).run(cut(source.gm, 1))
        return raw_predictions(view.to(self.device))

    def _validate_start(self) -> None:
        """Epoch 0."""
        self.epoch, self.loss = -1, torch.zeros(1)
        self.loss_items: dict[str, Tensor] = {}
        self.metrics, self.fitness = self.validate()
        self.best_epoch, self.kept = 0, {}
        if RANK > 0:  # the first process measures, chooses and writes
            self.metrics = {self.metric.key: 0.0, self.metric.second: 0.0}
            self.history.append(self._row(0))
            return
        if not self.validator.measures:
            raise Problem(self.args.data, "its val split has no labels, so the best epoch could not be told")
        keep(self.validator, self.given.source.family, self.wdir, 0)
        self.history.append(self._row(0))
        self.stopper.best_fitness = self.fitness
        self.run_callbacks("on_start_validated")

    def _row(self, epoch: int) -> Row:
        rate = self.optimizer.param_groups[0]["lr"] if epoch else 0.0
        found = {"map5095": self.metrics[self.metric.key], "map50": self.metrics[self.metric.second]}
        return {"epoch": epoch, **{name: float(value) for name, value in found.items()}, "lr": rate}

    def _average(self) -> dict[str, Tensor]:
        return resume_state.snapshot(self.ema.ema.detector.gm.state_dict())

    def _state(self) -> resume_state.State:
        return resume_state.State(
            start=self.start_digest,
            config=self.plan.summary(),
            history=self.history,
            best=self.best_epoch,
            model=self.trainee.detector.gm.state_dict(),
            average=self.ema.ema.detector.gm.state_dict(),
            kept=self.kept,
            optimizer=resume_state.pack_optimizer(self.optimizer),
            words={
                "images": self.data_digest,
                "updates": self.ema.updates,
                "stopper": {"best_fitness": float(self.stopper.best_fitness), "best_epoch": self.stopper.best_epoch},
            },
        )

    def _restore(self, found: resume_state.State) -> None:
        self.trainee.detector.gm.load_state_dict(dict(found.model))
        self.ema.ema.detector.gm.load_state_dict(dict(found.average))
        self.ema.updates = found.words["updates"]
        resume_state.unpack_optimizer(self.optimizer, found.optimizer)
        self.stopper.__dict__.update(found.words["stopper"])
        self._recall(found)
        self.start_epoch = found.epochs_done
        for _ in range(self.start_epoch):
            self.trainee.criterion.update()  # type: ignore[union-attr]
        self.best_fitness = self.history[self.best_epoch]["map5095"]
        self.run_callbacks("on_start_validated")

    def _recall(self, found: resume_state.State) -> None:
        self.history, self.best_epoch, self.kept = [dict(row) for row in found.history], found.best, dict(found.kept)

    def _going_on(self, finished: int) -> str:
        kept = f"epochs up to {finished} are kept: go on with --resume" if finished else "train again"
        return f"make room; {kept}"

    def _diverged(self, what: str) -> Problem:
        widest = widest_site(self.trainee.detector)
        finished = len(self.history) - 1
        kept = f"epochs up to {finished} are kept in {self.state_file}"
        remedy = f"lower lr0 ({self.args.lr0:g}) or train on; {kept}" if finished else f"lower lr0 ({self.args.lr0:g})"
        where = f"epoch {self.epoch + 1}, update {self.ema.updates + 1}"
        return Problem(where, f"{what}{widest}", remedy=remedy)


def _defaults() -> Any:
    from ultralytics.utils import DEFAULT_CFG

    return DEFAULT_CFG
