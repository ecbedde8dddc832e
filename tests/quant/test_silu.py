"""QuantizedSiLU: bit for bit the three modules, and their gradients, for every mix of fixed and learned scales."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from silu_blocks import SPECS, block, noise, step
from torch import nn


@pytest.mark.parametrize(("first", "last"), list(itertools.product(SPECS, SPECS)))
def test_it_is_the_three_modules(first: str, last: str) -> None:
    """300,000 values: more than two pieces, the last of them short."""
    fast, quantizers = block(first, last)
    x, upstream = noise(3, 10, 100, 100) * 3, noise(3, 10, 100, 100, seed=1)
    assert fast.uses_table(x)
    ours, theirs = (step(f, x, upstream, quantizers) for f in (fast, fast.step_by_step))
    assert torch.equal(ours[0].view(torch.int32), theirs[0].view(torch.int32))
    torch.testing.assert_close(ours[1][0], theirs[1][0], rtol=1e-5, atol=1e-5)
    for mine, plain in zip(ours[1][1:], theirs[1][1:], strict=True):
        # sums of 3e5 terms of either sign in another order: 2**-24 of the root of their number, times the gain
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(2**-10, 4, width=32), st.floats(2**-10, 4, width=32), st.integers(0, 10**6))
def test_any_scales(first: float, last: float, seed: int) -> None:
    fast, quantizers = block("lsq", "lsq")
    quantizers[0].scale.data.fill_(first)
    quantizers[2].scale.data.fill_(last)
    x = noise(999, seed=seed) * first * 300
    assert torch.equal(fast(x).view(torch.int32), fast.step_by_step(x).view(torch.int32))


@pytest.mark.parametrize("layout", ["channels_last", "slice", "expanded"])
def test_any_layout(layout: str) -> None:
    fast, quantizers = block("lsq", "lsq")
    x = noise(2, 6, 9, 11)
    made = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "slice": x[:, ::2, 1:],
        "expanded": x[:, :1].expand(2, 6, 9, 11),
    }[layout]
    upstream = noise(*made.shape, seed=3)
    ours, theirs = (step(f, made, upstream, quantizers) for f in (fast, fast.step_by_step))
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1][0], theirs[1][0], rtol=1e-5, atol=1e-5)


def test_where_the_table_does_not_apply_the_modules_run() -> None:
    x = noise(50)
    fast, quantizers = block("lsq", "fixed")
    quantizers[0].disable_fake_quant()
    assert not fast.uses_table(x)
    assert torch.equal(fast(x), fast.step_by_step(x))
    quantizers[0].enable_fake_quant()
    quantizers[2].enable_observer()
    assert not fast.uses_table(x)
    fast(x)
    assert quantizers[2].activation_post_process.seen
    quantizers[2].disable_observer()
    assert not fast.uses_table(x.half())
    assert fast(x.half()).dtype == torch.float16
    assert fast(torch.empty(0, 3)).shape == (0, 3)


def test_nan_stays_nan() -> None:
    fast, _ = block("lsq", "lsq")
    x = noise(50)
    x[7] = torch.nan
    y = fast(x)
    assert bool(y[7].isnan())
    assert int(y.isnan().sum()) == 1


def test_quantizers_are_shared_in_copies_too() -> None:
    fast, quantizers = block("lsq", "lsq")
    model = nn.ModuleDict({"quantizers": quantizers, "silu": fast})
    assert not any(name.startswith("silu") for name in model.state_dict())
    twin = copy.deepcopy(model)
    twin["quantizers"][2].scale.data.mul_(2)
    x = noise(50)
    assert not torch.equal(twin["silu"](x), fast(x))
    assert torch.equal(twin["silu"](x), twin["silu"].step_by_step(x))
