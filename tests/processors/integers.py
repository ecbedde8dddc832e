"""The codes of blocks by integers of 64 bits."""

from __future__ import annotations

import numpy as np
from blocks import INPUT_SCALE, OUTPUT_SCALE, OUTPUT_ZERO, Block, bias, images, weight_scales


def codes(block: Block, weight: np.ndarray) -> np.ndarray:
    """``clamp(rint(acc * s_x s_w / s_y) + z_y, 0, 255)`` as in fxqat.quant.kernels, uint8 (IMAGES, M, ...)."""
    values, wide = images(block) - block.zero_point, weight.astype(np.int64)
    total = _convolved(block, values, wide) if values.ndim == 4 else values @ wide.T
    by_row = (len(weight), *[1] * (total.ndim - 2))
    factor = INPUT_SCALE * weight_scales(block).reshape(by_row) / OUTPUT_SCALE
    return np.clip(np.rint((total + bias(block, weight).reshape(by_row)) * factor) + OUTPUT_ZERO, 0, 255).astype(
        np.uint8
    )


def _convolved(block: Block, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``y[n, m] = sum of w[m, c, v, u] x[n, c, stride y + dilation v, stride x + dilation u]``, group by group."""
    padded = np.pad(values, [(0, 0), (0, 0), (block.pad, block.pad), (block.pad, block.pad)])
    extent = [block.dilation * (taps - 1) + 1 for taps in weight.shape[2:]]
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, (2, 3))
    step, gap = block.stride, block.dilation
    windows = windows[:, :, ::step, ::step, ::gap, ::gap]
    parts = zip(np.split(windows, block.groups, 1), np.split(weight, block.groups), strict=True)
    return np.concatenate([np.einsum("ncyxvu,mcvu->nmyx", part, filters) for part, filters in parts], 1)
