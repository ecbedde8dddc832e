"""A convolution over groups of neighbouring pixels taken for one, as files for ONNX Runtime hold it."""

from __future__ import annotations

import numpy as np

LANES = 4  # bytes that one step of the kernel's dot product takes


def group_size(channels: int, stride: int) -> int:
    """The fewest pixels, a multiple of ``stride``, whose channels together are a multiple of LANES."""
    return next(size for size in range(stride, LANES * stride + 1, stride) if size * channels % LANES == 0)


def grouped_kernel(weight: np.ndarray, group: int, stride: int, pad: int) -> tuple[np.ndarray, int, int]:
    """The kernel over groups of ``group`` pixels that computes ``group / stride`` outputs at once.

    Output u of a group reads, at its tap k, the pixel ``o = stride u - pad + k`` after the group's first: pixel ``o mod
    group`` of the group ``floor(o / group)`` further on.

    Args:
        weight: (M, C, Kh, K).
        group: pixels, a multiple of ``stride``.
        stride: along the row.
        pad: zeros before the row.

    Returns:
        The kernel (M * group / stride, C * group, Kh, G) for stride 1, and its padding before and after the row.
    """
    outputs, (rows, channels, height, taps) = group // stride, weight.shape
    first, last = -pad // group, (stride * (outputs - 1) - pad + taps - 1) // group
    kernel = np.zeros((outputs, rows, group, channels, height, last - first + 1), weight.dtype)
    for u in range(outputs):
        for k in range(taps):
            at, pixel = divmod(stride * u - pad + k, group)
            kernel[u, :, pixel, :, :, at - first] = weight[..., k]
    return kernel.reshape(outputs * rows, group * channels, height, -1), -first, last
