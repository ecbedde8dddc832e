"""Detectors that other people trained go the whole way through files; every code of the export is the reference's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import fxqat
from fxqat.data import images as reader
from fxqat.graph.text import text
from fxqat.models.load import load_pt

SIZE = 320


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


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "data"), [("yolov8n_violation", "traffic-violation"), ("yolov8n", "coco128")])
def test_the_whole_way(shared_data, tmp_path, weights, data):
    source, found = shared_data / "weights" / f"{weights}.pt", shared_data / data / "data.yaml"
    if not source.is_file() or not found.is_file():
        pytest.skip(f"no {weights}.pt with {data} at {shared_data}")
    sample = next(reader.batches(reader.image_paths(found, limit=1), SIZE, 1, lambda path, why: None))
    trained = few(found, tmp_path)

    def through(model: fxqat.models.detector.Detector, name: str) -> fxqat.models.detector.Detector:
        again = fxqat.load(fxqat.save(model, tmp_path / f"{name}.fxqat"))
        assert text(again.gm.graph) == text(model.gm.graph)
        if name != "prepared":
            with torch.no_grad():
                assert torch.equal(again(sample)[0], model.eval()(sample)[0]), name
        return again

    model = fxqat.load(source)
    with torch.no_grad():
        assert torch.equal(model(sample)[0], load_pt(source)[0](sample)[0]), "the graph is the checkpoint's network"
    model = through(model, "float")
    model = through(fxqat.prepare(model, "critical")[0], "prepared")
    model = through(fxqat.calibrate(model, found, images_limit=8, imgsz=SIZE), "calibrated")
    options = {"epochs": 1, "imgsz": SIZE, "batch": 4, "workers": 0}
    model = through(fxqat.train(model, trained, folder=tmp_path / "run", **options), "trained")
    int8 = through(fxqat.convert(model)[0], "int8")
    onnx = fxqat.export(int8, tmp_path / "int8.onnx", imgsz=SIZE)
    verified = fxqat.verify(model, onnx, found, images_limit=2, imgsz=SIZE)
    assert verified.total(verified.pairs[1]).differing == 0
