"""A folder as the pages assume it: a small detector and a small labelled data set, under the names that pages use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from models.checkpoint_files import write
from small_networks import architecture
from torch import nn

from fxqat import demo
from fxqat.checkpoint import vocabulary
from fxqat.demo import make_dataset
from fxqat.evaluation import bootstrap
from fxqat.models.load import build
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets import TARGETS, operations

IMGSZ = 64  # small, and what every command takes by default, since the checkpoints say that they were trained so
CHECKPOINTS = ("yolov8n.pt", "best.pt")
DATA = ("data.yaml", "coco128.yaml", "coco.yaml")


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a detector with random weights, and drawn traffic signs under the names of several data sets."""
    folder = tmp_path_factory.mktemp("pages")
    data = yaml.safe_load(make_dataset(folder / "signs", images=20, seed=0).read_text())
    data = {**data, "path": str(folder / "signs")}
    for name in DATA:
        (folder / name).write_text(yaml.safe_dump(data))
    model = random_detector(data["names"])
    for name in CHECKPOINTS:
        write(folder / name, {"model": model, "train_args": {"imgsz": IMGSZ, "task": "detect"}})
    (folder / "image.jpg").symlink_to(next((folder / "signs" / "images" / "val").glob("*.jpg")))
    return folder


def random_detector(names: dict[int, str]) -> nn.Module:
    """A small detector whose batch norms know the statistics of noise: with fresh ones the signal would fade."""
    model, _ = build(architecture("yolov8n", classes=len(names)))
    model.names = names  # type: ignore[assignment]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(4, 3, IMGSZ, IMGSZ, generator=torch.Generator().manual_seed(3)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """``fxqat demo-data`` draws a few pictures, however many a page asks for."""

    def few(out: Path, images: int, **options: Any) -> Path:
        return make_dataset(out, images=min(images, 24), **options)

    monkeypatch.setattr(demo, "make_dataset", few)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from few resamples of the images, since no page says what they are."""
    monkeypatch.setitem(bootstrap.paired_drift.__kwdefaults__, "resamples", 50)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page registers is known as long as it runs."""
    monkeypatch.setattr(vocabulary, "_WORDS", list(vocabulary._WORDS))
    monkeypatch.setattr(operations, "_REGISTERED", dict(operations.registered()))
    known = [dict(registry) for registry in (TARGETS, RUNTIMES)]
    yield
    for registry, before in zip((TARGETS, RUNTIMES), known, strict=True):
        for name in registry.keys() - before.keys():
            del registry[name]


@pytest.fixture
def folder(materials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the materials in it, the current one while a page is run."""
    for one in materials.iterdir():
        if one.is_file():
            (tmp_path / one.name).symlink_to(one)
    monkeypatch.chdir(tmp_path)
    return tmp_path
