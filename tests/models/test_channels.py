"""Models whose channels are not what their architecture makes: fine-tuned to other classes, or pruned."""

from __future__ import annotations

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

import fxqat
from fxqat.errors import Problem
from fxqat.models.channels import channels_of, set_channels
from fxqat.models.load import build


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """As Ultralytics 8.4 begins a training from a checkpoint of 80 classes: it keeps the width of the class branch."""
    pretrained, _ = build("yolov8n.yaml")
    model = DetectionModel("yolov8n.yaml", nc=10, verbose=False)
    model.load(pretrained, verbose=False)
    narrow = channels_of(DetectionModel("yolov8n.yaml", nc=10, verbose=False))
    if channels_of(model) == narrow:
        set_channels(model, {f"model.22.cv3.{k}.2": (80, 10) for k in range(3)}, "here")  # older versions do not
    path = tmp_path_factory.mktemp("tuned") / "signs.pt"
    torch.save({"model": model.half(), "ema": None}, path)
    return path


def test_a_fine_tuned_detector_comes_back_from_its_file(fine_tuned, tmp_path):
    detector = fxqat.load(fine_tuned)
    assert detector.source.channels["model.22.cv3.0.2"] == (80, 10)
    assert detector.source.architecture["nc"] == 10
    qat, _ = fxqat.prepare(detector, "yolov8_critical")
    again = fxqat.load(fxqat.save(qat, tmp_path / "signs.fxqat"))
    wanted = qat.gm.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.gm.state_dict().items())


def test_channels_are_put_back_with_the_batch_norm_beside_them():
    model, _ = build("yolov8n.yaml")
    pruned = {"model.0.conv": (3, 12), "model.1.conv": (12, 32)}
    set_channels(model, pruned, "here")
    assert (model.model[0].conv.out_channels, model.model[0].bn.num_features) == (12, 12)
    assert model.model[0].bn.eps == 1e-3
    assert channels_of(model)["model.1.conv"] == (12, 32)
    assert model.model[1](model.model[0](torch.zeros(2, 3, 32, 32))).shape == (2, 32, 8, 8)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"model.0.bn": (3, 12)}, "x: tells the channels of model.0.bn, which is no convolution of its architecture"),
        ({"model.99.conv": (1, 1)}, "x: tells the channels of model.99.conv, which is no convolution"),
        ({"model.0.conv": (3, -4)}, "x: model.0.conv: cannot have 3 channels in and -4 out"),
    ],
)
def test_channels_that_cannot_be(channels, message):
    model, _ = build("yolov8n.yaml")
    with pytest.raises(Problem) as caught:
        set_channels(model, channels, "x")
    assert str(caught.value).startswith(message)
