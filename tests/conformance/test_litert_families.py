"""Every family as a .tflite file: no code differs, and ``YOLO()`` predicts from it what evaluation does."""

from __future__ import annotations

import importlib.util
import operator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from alive import alive
from small_networks import write
from torch import fx
from torch.nn import functional as F

import fxqat
from fxqat.evaluation.tflite_predictor import from_tflite
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, cut
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.runtime.bound import BOUND
from fxqat.runtime.reference.fused_kernels import computed_from
from fxqat.runtime.reference.tensor_names import CODES
from fxqat.runtime.tflite.tflite_file import TFLiteFile
from fxqat.runtime.tflite.tflite_summary import float_operations

MISSING = [name for name in ("litert_torch", "ai_edge_litert") if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"no .tflite is written or run: {MISSING} not installed", allow_module_level=True)

SIZE = 64
# A conversion takes its time by the site; tests/conformance/test_small_networks.py says what small networks stand for.
NAMES = (
    *("yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls", "yolov9t", "yolov10n", "yolo12n"),
    *("yolo26n-seg", "yolo26n-pose", "yolo26n-obb"),
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """A family's model on its way to a file."""

    qat: Detector
    file: Path


@pytest.fixture(scope="module", params=NAMES)
def made(request, images, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    model = fxqat.load(write(folder, request.param, keypoints=(4, 3)))
    qat = fxqat.calibrate(fxqat.prepare(alive(model, images), "w8a8", target="litert")[0], [images])
    return Made(qat=qat, file=fxqat.export(qat, folder / "small_int8.tflite", imgsz=SIZE))


class Products(fx.Interpreter):
    """Multiply-adds of layers, and of products of activations (attention) and with the bins of boxes (decode)."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.layers, self.matrices = 0, 0

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.target in (torch.conv2d, F.linear):
            self.layers += self.env[n.args[1]][0].numel() * value.numel()
        elif n.target is torch.conv_transpose2d:
            self.layers += self.env[n.args[1]].numel() * self.env[n.args[0]][0, 0].numel()
        elif n.target in (torch.matmul, operator.matmul):
            self.matrices += self.env[n.args[0]].shape[-1] * value.numel()
        return value


def share_of_matrices(qat: Detector) -> float:
    """The part of all multiply-adds that is none of a layer's, counted in the reference graph."""
    counter = Products(cut(fxqat.convert(qat)[0].gm, 0))
    counter.run(torch.zeros(1, 3, SIZE, SIZE))
    return counter.matrices / (counter.matrices + counter.layers)


def behind_floats(qat: Detector) -> set[str]:
    """Sites of integers that are rounded from a float operation's result: attention's, and the mean of a map."""
    nodes = fxqat.convert(qat)[0].gm.graph.nodes
    rounded = [node for node in nodes if node.target is quantize_per_tensor and computed_from(node) is None]
    return {site_of(node).removesuffix(CODES) for node in rounded if node.args[0].op != "placeholder"}


@pytest.mark.slow
def test_no_code_differs(made, images):
    shown = [torch.round(images[:1] * 255) / 255]
    found = fxqat.verify(made.qat, made.file, shown, imgsz=SIZE, runtimes="litert,litert-plain")
    total = found.total("reference_runtime")
    assert total.codes > 10_000
    # where a sum of floats lies at a tie, runtimes that add in another order round to the other side
    assert {row.site for row in found.rows if row.reference_runtime.differing} <= behind_floats(made.qat)
    assert total.largest <= 1
    assert total.share < BOUND
    # lengths of up to 64 pixels, maps and angles: float32 and no more operations than the decode's
    assert max(found.output_error.values()) < 64 * 2**-18


@pytest.mark.slow
def test_what_multiplies_in_float_is_the_decode_and_attention(made):
    found = float_operations(TFLiteFile.read(made.file))
    assert set(found.shares) <= {"FULLY_CONNECTED", "BATCH_MATMUL"}
    assert found.share == pytest.approx(share_of_matrices(made.qat), rel=1e-9)


@pytest.mark.slow
def test_ultralytics_loads_the_file_and_predicts_the_same(made, images, tmp_path):
    from ultralytics import YOLO

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), (images[0].numpy()[::-1] * 255).round().astype(np.uint8).transpose(1, 2, 0))
    task = made.qat.source.task
    (found,) = YOLO(made.file, task=task).predict(str(picture), imgsz=SIZE, conf=1e-9, verbose=False, device="cpu")
    ours = from_tflite(made.file)
    assert (ours.family, ours.final) == (made.qat.source.family, made.qat.final)
    y = ours(torch.from_numpy(found.orig_img[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)
    best = ours.final[0].scores(y[0] if isinstance(y, tuple) else y).max()
    theirs = found.probs.top1conf if task == "classify" else (found.obb if task == "obb" else found.boxes).conf.max()
    assert float(theirs) == pytest.approx(float(best), rel=1e-5)
