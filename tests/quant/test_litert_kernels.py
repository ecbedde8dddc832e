"""fxqat.quant.xnnpack_kernels and litert_kernels against LiteRT's own int8 kernels, code for code."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fxqat.quant import litert_kernels, ort_kernels, xnnpack_kernels

try:
    import tflite_files as files
except ImportError:  # pragma: no cover
    files = None  # type: ignore[assignment]

needs_litert = pytest.mark.skipif(files is None, reason="ai-edge-litert is not installed: LiteRT's kernels are not run")
KERNELS = {"xnnpack": xnnpack_kernels, "litert": litert_kernels}
EVERY = np.arange(-128, 128, dtype=np.int8)
PAIRS = [codes.reshape(1, 1, 256, 256).copy() for codes in np.meshgrid(EVERY, EVERY)]
SIGMOID = (float(np.float32(1 / 256)), -128)
Numbers = tuple[float, int]


@st.composite
def numbers(draw: st.DrawFn, low: float = 2**-7, high: float = 1.0) -> Numbers:
    """A scale that is a float32, and a zero point."""
    scale = draw(st.floats(low, high, width=32))
    return scale, draw(st.integers(-127, 127))


def both(test: Any) -> Any:
    """The test for both sets of kernels, beside LiteRT."""
    return needs_litert(pytest.mark.parametrize("name", KERNELS)(test))


def pair(kind: str, one: Numbers, two: Numbers, out: Numbers) -> Any:
    file = files.File()
    for label, given_numbers in zip("aby", (one, two, out), strict=True):
        file.tensor(label, PAIRS[0].shape, given_numbers)
    file.operation(kind, "ab", "y")
    return file


@both
@pytest.mark.parametrize("kind", ["MUL", "ADD"])
@settings(max_examples=20, deadline=None)
@given(one=numbers(), two=numbers(), out=numbers())
def test_every_pair_of_codes(name: str, kind: str, one: Numbers, two: Numbers, out: Numbers) -> None:
    (theirs,) = pair(kind, one, two, out).run(name, dict(zip("ab", PAIRS, strict=True)), "y")
    kernel = getattr(KERNELS[name], kind.lower())
    scales, zeros = zip(one, two, out, strict=True)
    ours = kernel(*map(torch.from_numpy, PAIRS), scales, zeros, -128, 127)
    assert int((ours.numpy() != theirs).sum()) == 0


@both
@settings(max_examples=40, deadline=None)
@given(x=numbers(2**-7, 4.0), out=numbers())
def test_every_code_of_a_sigmoid_and_of_a_silu(name: str, x: Numbers, out: Numbers) -> None:
    file = files.File()
    for label, given_numbers in (("x", x), ("gate", SIGMOID), ("y", out)):
        file.tensor(label, (1, 1, 16, 16), given_numbers)
    file.operation("LOGISTIC", ["x"], "gate")
    file.operation("MUL", ["x", "gate"], "y")
    inputs = {"x": EVERY.reshape(1, 1, 16, 16)}
    # asked for both, XNNPACK runs two kernels; asked for the last, one table
    alone, (table,) = file.run(name, inputs, ["gate", "y"]), file.run(name, inputs, ["y"])
    codes = torch.from_numpy(EVERY)
    gate = KERNELS[name].sigmoid(codes, *x, *SIGMOID, -128, 127)
    scales, zeros = zip(x, SIGMOID, out, strict=True)
    silu = KERNELS[name].mul(codes, gate, scales, zeros, -128, 127)
    assert gate.tolist() == alone[0].reshape(-1).tolist()
    assert silu.tolist() == alone[1].reshape(-1).tolist() == table.reshape(-1).tolist()


@both
@settings(max_examples=25, deadline=None)
@given(x=numbers(), out=numbers(), seed=st.integers(0, 2**32 - 1), channels=st.integers(1, 40))
def test_convolutions(name: str, x: Numbers, out: Numbers, seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (channels, 3, 3, 17)).astype(np.int8)
    weight[0], codes = 127, rng.integers(-128, 128, (1, 7, 7, 17)).astype(np.int8)
    codes[:, :3] = 127  # the largest sums there are: they overflow 16 bits
    bias = rng.integers(-(2**15), 2**15, channels).astype(np.int32)
    scales = rng.uniform(2**-14, 2**-8, channels).astype(np.float32)
    file = files.File()
    file.tensor("x", codes.shape, x)
    file.tensor("w", weight.shape, (scales, 0), data=weight)
    file.tensor("b", bias.shape, (scales * np.float32(x[0]), 0), "int32", bias)
    file.tensor("y", (1, 5, 5, channels), out)
    file.operation("CONV_2D", "xwb", "y", padding=1, strideH=1, strideW=1)  # 1 is VALID
    (theirs,) = file.run(name, {"x": codes}, "y")
    first, last = (torch.from_numpy(one).permute(0, 3, 1, 2) for one in (codes, weight))
    total = ort_kernels.exact_conv(first.float() - x[1], last, torch.from_numpy(bias), (1, 0, 1, 1))
    ours = KERNELS[name].requantize(total, (x[0], torch.from_numpy(scales), out[0]), out[1], -128, 127)
    assert int((ours.permute(0, 2, 3, 1).numpy() != theirs).sum()) == 0


@both
@settings(max_examples=40, deadline=None)
@given(out=numbers(), seed=st.integers(0, 2**32 - 1))
def test_quantize(name: str, out: Numbers, seed: int) -> None:
    ties = (np.arange(-150, 150) + np.float32(0.5)) * np.float32(out[0])
    spread = np.random.default_rng(seed).uniform(-200, 200, 700) * out[0]
    x = np.concatenate([ties, spread]).astype(np.float32).reshape(1, 1, 25, 40)
    file = files.File()
    file.tensor("x", x.shape, None, "float32")
    file.tensor("y", x.shape, out)
    file.operation("QUANTIZE", "x", "y")
    (theirs,) = file.run(name, {"x": x}, "y")
    assert int((KERNELS[name].quantize(torch.from_numpy(x), *out, -128, 127).numpy() != theirs).sum()) == 0


@pytest.mark.parametrize("name", KERNELS)
def test_images_are_exact_as_bytes(name: str) -> None:
    every = torch.arange(256)
    codes = KERNELS[name].quantize(every.float() / 255, float(np.float32(1 / 255)), -128, -128, 127)
    assert torch.equal(codes, every - 128)


def test_xnnpack_rounds_halves_to_even_and_the_reference_up() -> None:
    sums, scales = torch.tensor([[1.0], [3.0], [-1.0], [-3.0], [5.0]]), (0.5, torch.tensor([1.0]), 1.0)
    assert xnnpack_kernels.requantize(sums, scales, 3, -128, 127).flatten().tolist() == [3, 5, 3, 1, 5]
    assert litert_kernels.requantize(sums, scales, 3, -128, 127).flatten().tolist() == [4, 5, 3, 2, 6]


def test_the_reference_rounds_twice() -> None:
    # 127 / 256 is 0.496: first 63.5 becomes 64, then 64 / 128 is a half, which goes away from zero.
    factor = torch.tensor(1 / 256, dtype=torch.float64)
    found = [int(litert_kernels.multiply(torch.tensor(x), factor)) for x in (126, 127, 128, -127, -128)]
    assert found == [0, 1, 1, 0, -1]


def test_xnnpack_adds_in_integers_and_halves_go_up() -> None:
    a, b = torch.tensor([1, 0, -1, -2]), torch.zeros(4)
    assert xnnpack_kernels.add(a, b, (0.5, 0.5, 1.0), (0, 0, 0), -128, 127).tolist() == [1, 0, 0, -1]


@pytest.mark.parametrize("name", KERNELS)
def test_codes_end_at_the_ends_of_their_type(name: str) -> None:
    a, b = (torch.tensor(codes) for codes in zip(*product((-128, 127), repeat=2), strict=True))
    numbers_of = ((1.0, 1.0, 2**-6), (0, 0, 0), -128, 127)
    assert KERNELS[name].mul(a, b, *numbers_of).tolist() == [127, -128, -128, 127]
    assert KERNELS[name].add(a, b, *numbers_of).tolist() == [-128, -64, -64, 127]


def test_where_the_two_differ_it_is_by_one_code() -> None:
    a, b = (torch.from_numpy(codes) for codes in PAIRS)
    numbers_of = ((0.25, 0.5, 0.25), (3, -128, -20), -128, 127)
    gap = xnnpack_kernels.mul(a, b, *numbers_of) - litert_kernels.mul(a, b, *numbers_of)
    assert gap.abs().max() == 1
