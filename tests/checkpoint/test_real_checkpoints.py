"""Detectors that other people trained go the whole way through files; every code of the export is the reference's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import fxqat
from fxqat.data import images as reader
from fxqat.graph.text import text
from fxqat.models.detector import Detector
from fxqat.models.load import load_pt
from fxqat.runtime.verify import Verification

SIZE = 320
STAGES = ("float", "prepared", "calibrated", "trained", "int8")
pytestmark = pytest.mark.slow


def few(data: Path, folder: Path) -> Path:
    """A data set of one batch of four images to train on and one to validate."""
    content = yaml.safe_load(data.read_text())
    for split in ("train", "val"):
        paths = reader.image_paths(data, split=split, limit=4)
        (folder / f"{split}.txt").write_text("".join(f"{path}\n" for path in paths.paths))
        content[split] = str(folder / f"{split}.txt")
    path = folder / "few.yaml"
    path.write_text(yaml.safe_dump({"path": str(data.parent), **content}))
    return path


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A model as it is: its text, and what it predicts, which an uncalibrated one does not."""

    text: str
    output: Tensor | None


@dataclass(kw_only=True)
class Way:
    """The way of a checkpoint: at each stage the model, and what was read from the file that it was written to, from
    which the next is made."""

    source: Path
    data: Path
    folder: Path
    stages: dict[str, tuple[Seen, Seen]] = field(default_factory=dict)

    @cached_property
    def sample(self) -> Tensor:
        return next(reader.batches(reader.image_paths(self.data, limit=1), SIZE, 1, lambda path, why: None))

    @torch.no_grad()
    def seen(self, stage: str, model: Detector) -> Seen:
        return Seen(text=text(model.gm.graph), output=None if stage == "prepared" else model(self.sample)[0])

    def through(self, stage: str, model: Detector) -> Detector:
        again = fxqat.load(fxqat.save(model, self.folder / f"{stage}.fxqat"))
        self.stages[stage] = self.seen(stage, model.eval()), self.seen(stage, again)
        return again

    def go(self) -> Verification:
        """All stages, and the comparison of their last with the exported file."""
        options = {"epochs": 1, "imgsz": SIZE, "batch": 4, "workers": 0}
        model = self.through("float", fxqat.load(self.source))
        model = self.through("prepared", fxqat.prepare(model, "critical")[0])
        model = self.through("calibrated", fxqat.calibrate(model, self.data, images_limit=8, imgsz=SIZE))
        trained = fxqat.train(model, few(self.data, self.folder), folder=self.folder / "run", **options)
        model = self.through("trained", trained)
        int8 = self.through("int8", fxqat.convert(model)[0])
        file = fxqat.export(int8, self.folder / "int8.onnx", imgsz=SIZE)
        return fxqat.verify(model, file, self.data, images_limit=2, imgsz=SIZE)


@pytest.fixture(scope="module", params=[("yolov8n_violation", "traffic-violation"), ("yolov8n", "coco128")])
def gone(request, shared_data, tmp_path_factory) -> tuple[Way, Verification]:
    weights, data = request.param
    way = Way(
        source=shared_data / "weights" / f"{weights}.pt",
        data=shared_data / data / "data.yaml",
        folder=tmp_path_factory.mktemp(weights),
    )
    if not way.source.is_file() or not way.data.is_file():
        pytest.skip(f"no {weights}.pt with {data} at {shared_data}")
    return way, way.go()


@torch.no_grad()
def test_the_graph_is_the_network_of_the_checkpoint(gone):
    way, _ = gone
    assert torch.equal(way.stages["float"][0].output, load_pt(way.source)[0](way.sample)[0])


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_holds_the_graph_of_every_stage(gone, stage):
    model, again = gone[0].stages[stage]
    assert again.text == model.text


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "prepared"])
def test_what_is_read_from_the_file_of_every_stage_computes_the_same_bits(gone, stage):
    model, again = gone[0].stages[stage]
    assert torch.equal(again.output, model.output)


def test_every_code_of_the_export_is_the_references(gone):
    _, verified = gone
    assert verified.total(verified.pairs[1]).differing == 0
