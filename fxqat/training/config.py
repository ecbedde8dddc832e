"""How to train: our options, Ultralytics' options beside them, and the ``qat:`` section of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fxqat.errors import Problem
from fxqat.graph.site import nearest
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.models.detector import Detector
from fxqat.models.image_size import DEFAULT_SIZE, ImageSize
from fxqat.policy import Policy
from fxqat.policy.located_yaml import Lines, kind_of
from fxqat.training.losses import LossConfig
from fxqat.training.schedules import SCHEDULES

# isort: split
from ultralytics.cfg import check_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

# Ultralytics' options with our defaults: a trained network is repaired, not trained anew. Images are augmented only in
# ways that leave them as inference sees them (letterboxed, one scene an image), since ranges were calibrated on those.
RECIPE: Mapping[str, Any] = {
    "optimizer": "AdamW",
    # On 32 images held out of coco128, 320 pixels, w8a8, two epochs on the other 96 made the divergence from the
    # float network 0.0120 of 0.0159 at this rate; 1e-5 left it at 0.0156, and without AbsorbNorms made it 0.0381.
    "lr0": 2e-6,
    "lrf": 0.01,
    "weight_decay": 0.0,
    "warmup_epochs": 0.3,
    "warmup_bias_lr": 0.0,  # Ultralytics starts biases at 0.1, fifty thousand times our rate
    "mosaic": 0.0,
    "close_mosaic": 0,
    "scale": 0.0,
    "translate": 0.0,
    "hsv_s": 0.3,
    "hsv_v": 0.2,
    "auto_augment": None,
    "erasing": 0.0,
    "patience": 0,
    "plots": False,
}
OPTIMIZERS = ("AdamW", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD", "MuSGD", "auto")  # Ultralytics', any case
# What would contradict the graph, the state file, or the gate.
RESERVED: Mapping[str, str] = {
    "amp": "quantizers compute in float32",
    "quantize": "the policy quantizes",
    "distill_model": "use distill and teacher",
    "resume": "use resume of fxqat train",
    "model": "the detector is given",
    "pretrained": "the detector is given",
    "single_cls": "the detector's classes stay",
    "classes": "the detector's classes stay",
    "time": "the schedule is in epochs",
    "val": "every epoch is validated, so that the best is known",
    "save": "every epoch is saved, so that it can be resumed",
    "save_period": "use the callback ModelCheckpoint",
    "mode": "this is training",
    "cfg": "give options one by one",
    "project": "the run lies beside the result",
    "name": "the run lies beside the result",
    "exist_ok": "the run lies beside the result",
    "save_dir": "the run lies beside the result",
    "cos_lr": "use schedule",
    "nms": "the detector was prepared with or without it",
    "split": "the val split decides",
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Attributes:
        data: data set YAML, of classifiers a folder; its val split needs labels, its train split only where the task
            loss is used.
        epochs: all in all; epoch 0 is the model as given.
        batch: images a step.
        imgsz: of the images, multiples of the model's stride; one number, or height and width.
        device: as Ultralytics': "" for a GPU where there is one, "cpu", "0", "0,1" for a process on each of two.
        seed: of weights' order, augmentation and everything random; each epoch's randomness follows from it alone.
        lsq: learn the scales of calibrated activations.
        freeze_bn: share of the epochs after which batch norms use and keep their running statistics.
        freeze_observers: share of the epochs in which ranges that are not learned are observed anew, at each epoch's
            start but the first, on training images as inference sees them.
        freeze_scales: share of the epochs after which learned scales stay.
        scale_rate: learning rate of learned scales, times lr0.
        schedule: ``cosine``, ``linear`` or ``qat``, or one of torch's: ``CosineAnnealingWarmRestarts``, ``StepLR``,
            ``ReduceLROnPlateau``.
        schedule_options: options of the schedule.
        compile: make one kernel of a quantizer's steps where a C++ compiler is at hand and training is on a CPU.
        progressive: globs of sites, and the epoch (0 is the first) from which their quantizers are on.
        loss: weights of the loss's parts.
        options: any other option of Ultralytics' trainer.

    Raises:
        ValueError, TypeError, Problem: one line that names the field, its value and what is legal.
    """

    data: str
    epochs: int = 3
    batch: int = 4
    imgsz: ImageSize = DEFAULT_SIZE
    device: str = ""
    seed: int = 0
    lsq: bool = False
    freeze_bn: float = 0.0
    freeze_observers: float = 0.0
    freeze_scales: float = 1.0
    scale_rate: float = 1.0
    schedule: str = "cosine"
    schedule_options: Mapping[str, Any] = field(default_factory=dict)
    compile: bool = True
    progressive: Mapping[str, int] = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "imgsz", ImageSize.of(self.imgsz))
        for name in ("epochs", "batch"):
            _require(_whole(getattr(self, name)) and getattr(self, name) > 0, name, getattr(self, name), "1 or more")
        _require(_whole(self.seed) and self.seed >= 0, "seed", self.seed, "a whole number, 0 or more")
        for name in ("lsq", "compile"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        for name in ("freeze_bn", "freeze_observers", "freeze_scales"):
            _require(
                _number(getattr(self, name)) and 0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1"
            )
        _require(_number(self.scale_rate) and self.scale_rate >= 0, "scale_rate", self.scale_rate, "0 or more")
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        for name in ("schedule_options", "progressive"):
            _require(isinstance(getattr(self, name), Mapping), name, getattr(self, name), "a mapping")
        for start in self.progressive.values():
            _require(_whole(start) and start >= 0, "progressive", start, "epochs, 0 or more, by glob")
        for name in self.options:
            _require(name not in OWN, "options", name, "options of Ultralytics alone")
        check_cfg(dict(self.options))
        optimizer = self.options.get("optimizer", "auto")
        legal = str(optimizer).lower() in map(str.lower, OPTIMIZERS)
        _require(legal, "optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")

    def overrides(self) -> dict[str, Any]:
        """What Ultralytics' trainer is given; no step is accumulated over batches unless ``nbs`` says so."""
        ours = {name: getattr(self, name) for name in ("data", "epochs", "batch", "device", "seed")}
        ours["imgsz"] = self.imgsz.longest  # Ultralytics' training takes one side
        fixed = {"mode": "train", "amp": False, "val": True, "save": True, "deterministic": True}
        return {**RECIPE, "nbs": self.batch, **self.options, **ours, **fixed}

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        mappings = {name: dict(getattr(self, name)) for name in _MAPPINGS}
        return {**asdict(self), **mappings, "imgsz": self.imgsz.plain}


_MAPPINGS = ("schedule_options", "progressive", "options")
OWN = tuple(one.name for one in fields(TrainingConfig) if one.name not in ("loss", "options"))
LOSS = tuple(one.name for one in fields(LossConfig))
EXTRA = ("unlabelled",)


def configure(data: str, section: Mapping[str, Any] | None, file: str, given: Mapping[str, Any]) -> TrainingConfig:
    """The defaults, overruled by a policy's ``qat:`` section, overruled by what the caller gives.

    Args:
        data: data set YAML.
        section: the policy's; may carry ``line`` and ``lines`` (by key), which errors name.
        file: the policy's name.
        given: options by name, ours, the loss's, or Ultralytics'. ``unlabelled`` decides the task's weight whatever the
            section says.

    Raises:
        Problem: an unknown option, one that is not for the user to set, or an illegal value.
    """
    check_section(section, file)
    beneath = {name: value for name, value in (section or {}).items() if name != "task" or "unlabelled" not in given}
    merged = {**beneath, **given}
    for name in given:
        _check_name(name, "train")
    return _config(data, merged, "train")


def configured(detector: Detector, data: str, options: Mapping[str, Any]) -> TrainingConfig:
    """The defaults, overruled by the ``qat:`` section of the detector's policy, overruled by ``options``; images of the
    size that the detector was calibrated at, where neither says another.

    Raises:
        Problem: an unknown option, one that is not for the user to set, or an illegal value.
    """
    recipe = detector.recipe
    policy = Policy.parse(recipe.policy_text, recipe.policy_name) if recipe.policy_text else None
    section = policy.options.get("qat") if policy else None
    made_at = {"imgsz": detector.imgsz} if "imgsz" not in (section or {}) else {}
    return configure(data, section, policy.name if policy else "", {**made_at, **options})


def check_section(section: Any, file: str) -> None:
    """Refuse a ``qat:`` section that training would refuse.

    Raises:
        Problem: with ``file:line``.
    """
    if section is None:
        return
    if not isinstance(section, Mapping):
        raise Problem(file, f"qat is {kind_of(section)}", expected="a mapping of options to values")
    for name in section:
        _check_name(name, _place(section, name, file))
    for name, value in section.items():
        _config("data.yaml", {name: value, **_FRIENDS.get(name, {})}, _place(section, name, file))


def _place(section: Mapping[str, Any], name: str, file: str) -> str:
    """``file:line`` of an option, where the section comes from a file."""
    return section.where(name) if isinstance(section, Lines) else file


# What a lone option needs beside it to be legal.
_FRIENDS: Mapping[str, Mapping[str, Any]] = {"task": {"distill": 1.0}}


def _config(data: str, flat: Mapping[str, Any], where: str) -> TrainingConfig:
    flat = dict(flat)
    loss = {"task": 0.0, "distill": 1.0} if flat.pop("unlabelled", False) else {}
    loss.update({name: flat.pop(name) for name in LOSS if name in flat})
    own = {name: flat.pop(name) for name in OWN if name in flat}
    own.update({"device": str(own["device"])} if "device" in own else {})
    try:
        return TrainingConfig(data=data, loss=LossConfig(**loss), options=flat, **own)
    except (Problem, TypeError, ValueError) as error:
        raise Problem(where, str(error)) from error


def _check_name(name: str, where: str) -> None:
    if name in RESERVED:
        raise Problem(where, f"{name} cannot be set: {RESERVED[name]}")
    known = [*OWN, *LOSS, *EXTRA, *(option for option in DEFAULT_CFG_DICT if option not in RESERVED)]
    if name not in known:
        raise Problem(where, f"unknown option {name!r}", remedy=nearest(name, known) or "see fxqat train --help")


def _require(holds: bool, name: str, value: object, legal: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {value!r} is not legal, expected {legal}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
