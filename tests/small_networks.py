"""Architectures of a few layers, where the network does not matter and every layer costs time: for each of Ultralytics'
one of each block, and two levels of its head. tests/conformance compares their operations with those of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

V6 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 2, Conv, [32, 3, 1]]
  - [-1, 1, SPPF, [32, 5]]
head:
  - [-1, 1, nn.ConvTranspose2d, [32, 2, 2, 0]]
  - [[-1, 0], 1, Concat, [1]]
  - [[5, 3], 1, {head}]
"""
V8 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 2, C2f, [32, True]]
  - [-1, 1, SPPF, [32, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [[5, 3], 1, {head}]
"""
V9 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, ELAN1, [32, 32, 16]]
  - [-1, 1, AConv, [32]]
  - [-1, 1, ADown, [32]]
  - [-1, 1, SPPELAN, [32, 16]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 2], 1, Concat, [1]]
  - [-1, 1, RepNCSPELAN4, [32, 32, 16, 2]]
  - [[7, 4], 1, {head}]
"""
V10 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, SCDown, [32, 3, 2]]
  - [-1, 1, SPPF, [32, 5]]
  - [-1, 1, PSA, [32]]
  - [[-1, 1], 1, Concat, [1]]
  - [-1, 1, C2fCIB, [32, True, True]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [[7, 5], 1, {head}]
"""
V11 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [32, False, 0.25]]
  - [-1, 1, SPPF, [64, 5]]
  - [-1, 1, C2PSA, [64]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [-1, 1, C3k2, [32, True]]
  - [[7, 4], 1, {head}]
"""
V12 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C3k2, [64, True]]
  - [-1, 1, A2C2f, [64, True, 4, True, 1.2]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [-1, 1, A2C2f, [64, False, -1]]
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [[8, 3], 1, {head}]
"""
V26 = """
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, SPPF, [32, 5, 3, True]]
  - [-1, 1, C2PSA, [32]]
  - [-1, 1, C3k2, [32, True, 0.5, True]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [-1, 1, C3k2, [32, False, 0.25]]
  - [[7, 4], 1, {head}]
"""
CLASSIFIER8 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 2, C2f, [32, True]]
head:
  - [-1, 1, {head}]
"""
CLASSIFIER11 = """
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C3k2, [32, False, 0.25]]
  - [-1, 1, C3k2, [64, True]]
  - [-1, 1, C2PSA, [64]]
head:
  - [-1, 1, {head}]
"""
SEGMENT, POSE, OBB = "Segment, [nc, 32, 64]", "Pose, [nc, kpt_shape]", "OBB, [nc, 1]"
DETECT, CLASSIFY = "Detect, [nc]", "Classify, [nc]"
RELU, END2END = "activation: torch.nn.ReLU()\n", "end2end: True\nreg_max: 1\n"
# What is said of the whole network, its blocks, its head.
FAMILIES = {
    "yolov6n": (RELU, V6, DETECT),
    "yolov8n": ("", V8, DETECT),
    "yolov8n-seg": ("", V8, SEGMENT),
    "yolov8n-pose": ("", V8, POSE),
    "yolov8n-obb": ("", V8, OBB),
    "yolov8n-cls": ("", CLASSIFIER8, CLASSIFY),
    "yolov9t": ("", V9, DETECT),
    "yolov10n": ("", V10, "v10Detect, [nc]"),
    "yolo11n": ("", V11, DETECT),
    "yolo11n-seg": ("", V11, SEGMENT),
    "yolo11n-pose": ("", V11, POSE),
    "yolo11n-obb": ("", V11, OBB),
    "yolo11n-cls": ("", CLASSIFIER11, CLASSIFY),
    "yolo12n": ("", V12, DETECT),
    "yolo12l": ("", V12, DETECT),
    "yolo26n": (END2END, V26, DETECT),
    "yolo26n-seg": (END2END, V26, "Segment26, [nc, 32, 64]"),
    "yolo26n-pose": (END2END, V26, "Pose26, [nc, kpt_shape]"),
    "yolo26n-obb": (END2END, V26, "OBB26, [nc, 1]"),
    "yolo26n-cls": ("", CLASSIFIER11, CLASSIFY),
}


def architecture(name: str, *, classes: int = 3, keypoints: Sequence[int] = (17, 3)) -> dict[str, Any]:
    """The small network that stands for ``name``, as Ultralytics' YAML files hold one."""
    options, blocks, head = FAMILIES[name]
    counts = f"nc: {classes}\nkpt_shape: {list(keypoints)}\n"
    content = dict(yaml.safe_load(f"{counts}{options}backbone:{blocks.format(head=head)}"))
    if head == SEGMENT:  # prototypes are made of the first level, and Ultralytics' validation takes 4 pixels for a cell
        content["head"][-1][0].reverse()
    return content


def write(folder: Path, name: str, **how: Any) -> str:
    """``folder / small_NAME.yaml``, as ``fxqat.load`` takes it."""
    path = folder / f"small_{name}.yaml"
    path.write_text(yaml.safe_dump(architecture(name, **how)))
    return str(path)
