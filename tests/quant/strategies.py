"""Specs, ranges and tensors as hypothesis draws them; ties are aimed at, since plain floats never hit one."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from fxqat.quant.spec import QuantSpec

finite = st.floats(-1e6, 1e6, width=32)


@st.composite
def specs(draw: st.DrawFn, *, bits: st.SearchStrategy[int] | None = None, axis: int | None = None) -> QuantSpec:
    """Any scheme; per tensor unless ``axis`` is given."""
    drawn = bits if bits is not None else st.integers(2, 8 if axis is not None else 16)
    return QuantSpec(
        bits=draw(drawn),
        signed=draw(st.booleans()),
        symmetric=draw(st.booleans()),
        narrow=draw(st.booleans()),
        power_of_two=draw(st.booleans()),
        axis=axis,
    )


@st.composite
def ends(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A range, possibly empty, tiny, one-sided or huge."""
    first, second = draw(finite), draw(finite)
    shrink = draw(st.sampled_from([1.0, 1e-6, 1e-30, 1e30]))
    low, high = sorted((first * shrink, second * shrink))
    return torch.tensor([low]), torch.tensor([high])


def beside_ties(scale: float, codes: range, seed: int) -> Tensor:
    """Float32 values at ``(code + 1/2) * scale`` and up to three float steps to either side, for every code."""
    scale32 = np.float32(scale)
    ties = ((np.arange(codes.start, codes.stop) + 0.5).astype(np.float32) * scale32).astype(np.float32)
    steps = np.random.default_rng(seed).integers(-3, 4, (7, ties.size)).astype(np.int32)
    near = (ties.view(np.int32)[None] + steps).view(np.float32)
    return torch.from_numpy(np.concatenate([ties, near.ravel()]))
