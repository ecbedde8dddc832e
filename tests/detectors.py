"""Detectors for tests: one that finds the tiny data set's colours, one that is a real ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

NAMES = {0: "red", 1: "green", 2: "blue"}


def find_colours(images: Tensor) -> Tensor:
    """y (N, 7, 8): for each class the box of its pure pixels; its confidence is the share of the box they fill."""
    output = torch.zeros(len(images), 7, 8)
    for index, image in enumerate(images):
        for channel in range(3):
            others = [other for other in range(3) if other != channel]
            hits = ((image[channel] > 0.8) & (image[others] < 0.3).all(0)).nonzero()
            if len(hits):
                output[index, :, channel] = _detection(hits, channel)
    return output


def _detection(hits: Tensor, channel: int) -> Tensor:
    (top, left), (bottom, right) = hits.min(0).values.tolist(), (hits.max(0).values + 1).tolist()
    width, height = right - left, bottom - top
    box = [(left + right) / 2, (top + bottom) / 2, width, height]
    scores = [0.0, 0.0, 0.0]
    scores[channel] = len(hits) / (width * height)
    return torch.tensor([*box, *scores])


def shifted(pixels: float):
    """A detector that is worse by construction: the same boxes, moved to the right."""

    def predict(images: Tensor) -> Tensor:
        output = find_colours(images)
        output[:, 0] += pixels
        return output

    return predict


def write_onnx(
    path: Path, *, batch: int | str = "batch", imgsz: int | str | tuple[int, int] = "size", names: str | None = None
) -> Path:
    """A detector of one strided convolution: (N, 3, H, W) to (N, 7, H*W/256), boxes of pixels and probabilities."""
    height, width = imgsz if isinstance(imgsz, tuple) else (imgsz, imgsz)
    generator = np.random.default_rng(5)
    weight = generator.normal(0, 0.05, (7, 3, 16, 16)).astype(np.float32)
    bias = np.array([40, 40, 30, 30, 0, 0, 0], np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["grid"], strides=[16, 16]),
        helper.make_node("Reshape", ["grid", "flat"], ["rows"]),
        helper.make_node("Split", ["rows", "parts"], ["boxes", "logits"], axis=1),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    constants = {"w": weight, "b": bias, "flat": np.array([0, 7, -1]), "parts": np.array([4, 3])}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, 7, None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"names": names} if names else {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
