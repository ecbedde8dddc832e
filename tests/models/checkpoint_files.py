"""Checkpoints as other versions and programs write them: of small detectors, and from pickles put together by hand."""

from __future__ import annotations

import copy
import pathlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_networks import architecture
from torch import nn
from torchvision import transforms
from ultralytics import YOLO
from ultralytics.nn.modules import Detect
from ultralytics.utils import IterableSimpleNamespace

from fxqat.models.load import build

PICKLE = "archive/data.pkl"
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}


class Call:
    """Pickles as a call of ``function(*arguments)`` on loading, and then takes ``state``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.how = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def detector(**changes: Any) -> nn.Module:
    """A small detector with random weights, and with ``changes`` to its attributes."""
    model, _ = build(architecture("yolov8n", classes=2))
    model.names = {0: "cat", 1: "dog"}
    for name, value in changes.items():
        setattr(model, name, value)
    return model


def write(path: Path, content: Any, **options: Any) -> Path:
    """``content`` by torch.save."""
    torch.save(content, path, **options)
    return path


def write_unfinished(path: Path, model: nn.Module) -> Path:
    """last.pt of a training that goes on: EMA with its loss, optimizer, numbers and arrays of NumPy, paths."""
    model.args = IterableSimpleNamespace(**GAINS)
    model.criterion = model.init_criterion()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    content = {
        "epoch": 3,
        "best_fitness": np.float64(0.25),
        "model": None,
        "ema": copy.deepcopy(model),
        "updates": 12,
        "optimizer": optimizer.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "train_args": {"save_dir": pathlib.Path("runs") / "train", "imgsz": 64},
        "train_metrics": {"fitness": np.float32(0.5), "curve": np.arange(3.0), "any": np.array([None, {1}])},
        "train_results": {"epoch": [1, 2]},
    }
    del model.args, model.criterion
    return write(path, content)


def write_pickle(path: Path, words: bytes) -> Path:
    """A file of torch.save's newer format around any pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(PICKLE, words)
        file.writestr("archive/version", "3\n")
    return path


def change_pickle(path: Path, *changes: tuple[bytes, bytes]) -> Path:
    """The file of torch.save with parts of its pickle replaced; each must be there."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in records if name.endswith("/data.pkl"))
    for old, new in changes:
        assert old in records[name], f"the pickle has no {old!r}"
        records[name] = records[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as file:
        for record, data in records.items():
            file.writestr(record, data)
    return path


def named(module: str, name: str) -> bytes:
    """The opcode that names a global."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """The opcode of a string."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def replaced_activations(model: nn.Module, activation: nn.Module) -> nn.Module:
    """``model`` with another activation in each Conv, put in by code."""
    for layer in model.modules():
        if isinstance(getattr(layer, "act", None), nn.SiLU):
            layer.act = copy.deepcopy(activation)
    return model


def pruned(model: nn.Module) -> nn.Module:
    """``model`` with 5 channels after its second convolution, where its architecture says 32."""
    first, second = model.model[1], model.model[2].cv1
    first.conv, first.bn = nn.Conv2d(16, 5, 3, 2, 1, bias=False), nn.BatchNorm2d(5)
    second.conv = nn.Conv2d(5, second.conv.out_channels, 1, bias=False)
    return model.eval()


def write_ultralytics_8_0(path: Path, model: nn.Module) -> Path:
    """As version 8.0.20 named its modules: layers in one file, a package ``yolo`` with losses and settings."""
    write_unfinished(path, model)
    with zipfile.ZipFile(path) as file:
        words = file.read(next(name for name in file.namelist() if name.endswith("/data.pkl")))
    inner = ("conv", "block", "head")
    layers = [(f"cultralytics.nn.modules.{one}\n".encode(), b"cultralytics.nn.modules\n") for one in inner]
    moved = [
        (b"cultralytics.utils\n", b"cultralytics.yolo.utils\n"),
        (b"cultralytics.utils.tal\n", b"cultralytics.yolo.utils.tal\n"),
        (named("ultralytics.utils.loss", "v8DetectionLoss"), named("ultralytics.yolo.v8.detect.train", "Loss")),
        (b"cultralytics.utils.loss\n", b"cultralytics.yolo.utils.loss\n"),
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
    ]
    return change_pickle(path, *[change for change in layers + moved if change[0] in words])


def write_dill(path: Path, model: nn.Module) -> Path:
    """As Ultralytics 8.0.196 to 8.3 wrote it where dill was installed: sets and methods by dill's own function."""
    write(path, {"model": model.fuse(verbose=False)})
    return change_pickle(
        path, (named("__builtin__", "set"), named("dill._dill", "_load_type") + text("set") + b"\x85R")
    )


def with_transforms(model: nn.Module) -> nn.Module:
    """``model`` with the preprocessing that Ultralytics keeps in classifiers."""
    resize = transforms.Resize(64, interpolation=transforms.InterpolationMode.BILINEAR)
    model.transforms = transforms.Compose([resize, transforms.ToTensor(), transforms.Normalize(0.0, 1.0)])
    return model


def with_method(model: nn.Module) -> nn.Module:
    """``model`` with ``Detect.forward`` as a value, as Ultralytics keeps it in segmentation heads."""
    model.model[-1].detect = Detect.forward
    return model


def write_yolo(path: Path, model: nn.Module) -> Path:
    """A whole YOLO object, saved by torch.save."""
    wrapped = YOLO("yolov8n.yaml")
    wrapped.model = model
    return write(path, wrapped)


def half(model: nn.Module) -> nn.Module:
    """A copy in float16, as finished trainings are saved."""
    return copy.deepcopy(model).half()


# Each writes the model in a form that must load as the same network.
WRITERS: dict[str, Callable[[Path, nn.Module], Path]] = {
    "the bare model": lambda path, model: write(path, model),
    "float32": lambda path, model: write(path, {"model": model}),
    "the EMA beside the model": lambda path, model: write(path, {"model": detector(), "ema": model}),
    "an unfinished training": write_unfinished,
    "Ultralytics 8.0": write_ultralytics_8_0,
    "the older format": lambda path, model: write(path, {"model": model}, _use_new_zipfile_serialization=False),
    "protocol 4": lambda path, model: write(path, {"model": model}, pickle_protocol=4),
    "protocol 5": lambda path, model: write(path, {"model": model}, pickle_protocol=5),
    "protocol 1": lambda path, model: write(path, {"model": model}, pickle_protocol=1),
    "DataParallel": lambda path, model: write(path, {"model": nn.DataParallel(model)}),
    "a YOLO object": write_yolo,
    "a path of Windows": lambda path, model: write(path, {"model": model, "x": Call(pathlib.WindowsPath, "C:\\runs")}),
    "a path of Python 3.13": lambda path, model: change_pickle(
        write(path, {"model": model, "x": pathlib.PosixPath("runs")}), (b"cpathlib\n", b"cpathlib._local\n")
    ),
    "torchvision's transforms": lambda path, model: write(path, {"model": with_transforms(model)}),
    "Detect.forward as a value": lambda path, model: write(path, {"model": with_method(model)}),
}
# Each changes the model before it is saved.
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float16": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "float64": lambda model: model.double(),
    "fused": lambda model: model.fuse(verbose=False),
    "ReLU": lambda model: replaced_activations(model, nn.ReLU()),
    "LeakyReLU": lambda model: replaced_activations(model, nn.LeakyReLU(0.1)),
    "Hardswish": lambda model: replaced_activations(model, nn.Hardswish()),
    "ReLU6": lambda model: replaced_activations(model, nn.ReLU6()),
    "Mish": lambda model: replaced_activations(model, nn.Mish()),
    "ELU": lambda model: replaced_activations(model, nn.ELU()),
    "pruned": pruned,
}
