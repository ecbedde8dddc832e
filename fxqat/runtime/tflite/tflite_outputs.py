"""The final outputs of a model as a .tflite file holds them: what Ultralytics' loader reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fxqat.errors import Problem
from fxqat.models.families import FAMILIES
from fxqat.models.family import FinalOutput
from fxqat.models.file_head import FileHead, file_head
from fxqat.runtime.tflite.tflite_file import TFLiteFile

MAP = 4  # axes of an output that is a map, (B, C, H, W)
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # the axes of a map in the order that has its channels last, or first again


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs of a file and the image that they are of.

    Lengths on the image are parts of its size, and maps have their channels last where the image has. Of a file that
    takes images (B, 3, H, W) and predicts without NMS, Ultralytics' own, lengths are pixels.

    Attributes:
        final: of the family.
        shape: of the images, (B, 3, H, W).
        is_last: whether the file takes them as (B, H, W, 3).
    """

    final: tuple[FinalOutput, ...]
    shape: tuple[int, ...]
    is_last: bool

    def read(self, found: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A file's outputs, float32, in the order and the axes of ``final``, lengths in pixels."""
        by_rank = sorted(found, key=lambda one: one.ndim)  # Ultralytics' files may have maps first
        return [self._one(one, y) for one, y in zip(self.final, by_rank, strict=True)]

    def _one(self, output: FinalOutput, y: np.ndarray) -> np.ndarray:
        if y.ndim == MAP:
            return y.transpose(FIRST) if self.is_last else y
        in_pixels = not self.is_last and output.has("confidence")
        if in_pixels or y.ndim <= output.axis or y.shape[output.axis] != output.size:
            return y  # of another size: the reader says so
        lengths = np.array(output.lengths(*self.shape[2:]), np.float32)
        along = [-1 if axis == output.axis else 1 for axis in range(y.ndim)]
        with np.errstate(over="ignore", invalid="ignore"):  # boxes of a damaged file may be as large as floats go
            return y * lengths.reshape(along)


def head_of(path: Path, file: TFLiteFile) -> FileHead:
    """The head behind the outputs of ``file``.

    Raises:
        Problem: the file takes anything but images, has no metadata of Ultralytics' form, or those of a task that no
            family has.
    """
    _check_input(path, file)
    names = file.metadata.get("names")
    if not isinstance(names, dict) or "task" not in file.metadata:
        known = ", ".join(FAMILIES)
        raise Problem(path, "does not say what it predicts", expected=f"Ultralytics' metadata, a task of: {known}")
    return file_head(path, file.metadata, names, _shapes(file))


def _check_input(path: Path, file: TFLiteFile) -> None:
    shapes = [file.shape(index) for index in file.graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or 3 not in (shapes[0][1], shapes[0][3]):
        raise Problem(path, f"takes {shapes}", expected="one image input, (N, H, W, 3) or (N, 3, H, W)")


def outputs_of(file: TFLiteFile, final: tuple[FinalOutput, ...]) -> Outputs:
    """``file``'s outputs, if they are ``final``."""
    return Outputs(final=final, shape=image_shape(file), is_last=has_channels_last(file))


def image_shape(file: TFLiteFile) -> tuple[int, ...]:
    """The sizes of the images that a file takes, (B, 3, H, W)."""
    batch, *sizes = file.shape(file.graph.inputs[0])
    return (batch, sizes[-1], *sizes[:-1]) if has_channels_last(file) else (batch, *sizes)


def has_channels_last(file: TFLiteFile) -> bool:
    """Whether a file takes images (B, H, W, 3)."""
    return file.shape(file.graph.inputs[0])[-1] == 3


def _shapes(file: TFLiteFile) -> Sequence[Any]:
    """The sizes of the outputs, fewest axes first, channels of a map before its sides."""
    shapes = sorted((file.shape(index) for index in file.graph.outputs), key=len)
    is_last = has_channels_last(file)
    return [tuple(one[axis] for axis in FIRST) if len(one) == MAP and is_last else one for one in shapes]
