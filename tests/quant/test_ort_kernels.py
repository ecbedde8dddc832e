"""fxqat.quant.ort_kernels against ONNX Runtime's own integer kernels, all pairs of codes, code for code."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fxqat.quant import ort_kernels

ALL = np.arange(256, dtype=np.uint8)
TRIALS = 25  # 1.6 million results an operation


def session(op: str, numbers: dict[str, tuple[float, int]]) -> ort.InferenceSession:
    """DequantizeLinear, ``op``, QuantizeLinear over uint8, which the optimizer fuses into one integer kernel."""
    inputs = [name for name in numbers if name != "y"]
    constants = [
        tensor
        for name, (scale, zero) in numbers.items()
        for tensor in (
            numpy_helper.from_array(np.float32(scale), f"{name}_scale"),
            numpy_helper.from_array(np.uint8(zero), f"{name}_zero"),
        )
    ]
    nodes = [
        helper.make_node("DequantizeLinear", [n, f"{n}_scale", f"{n}_zero"], [f"{n}_float"], name=n) for n in inputs
    ]
    nodes.append(helper.make_node(op, [f"{name}_float" for name in inputs], ["float"], name="op"))
    nodes.append(helper.make_node("QuantizeLinear", ["float", "y_scale", "y_zero"], ["y"], name="y"))
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 1, None, None]) for name in [*inputs, "y"]
    }
    graph = helper.make_graph(nodes, "one", [values[name] for name in inputs], [values["y"]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_numbers(seed: int, names: str) -> dict[str, tuple[float, int]]:
    rng = np.random.default_rng(seed)
    return {name: (float(np.float32(np.exp(rng.uniform(-6, 0)))), int(rng.integers(0, 256))) for name in names}


@pytest.mark.parametrize(("op", "kernel"), [("Mul", ort_kernels.mul), ("Add", ort_kernels.add)])
def test_pairs_equal_the_runtime(op: str, kernel: object) -> None:
    a, b = (codes.reshape(1, 1, 256, 256).copy() for codes in np.meshgrid(ALL, ALL))
    differing = 0
    for seed in range(TRIALS):
        numbers = random_numbers(seed, "aby")
        theirs = session(op, numbers).run(None, {"a": a, "b": b})[0]
        scales, zeros = zip(*numbers.values(), strict=True)
        ours = kernel(torch.from_numpy(a), torch.from_numpy(b), scales, zeros, 0, 255)  # type: ignore[operator]
        differing += int((ours.numpy() != theirs).sum())
    assert differing == 0


def test_the_plain_formulas_would_not_do() -> None:
    """Why the kernels are spelled out: rounding where ONNX's text says gives other codes beside ties."""
    a, b = (torch.from_numpy(codes.reshape(-1).copy()) for codes in np.meshgrid(ALL, ALL))
    differing = 0
    for seed in range(60):
        (s_a, z_a), (s_b, z_b), (s_y, z_y) = random_numbers(seed, "aby").values()
        product = ((a.float() - z_a) * s_a) * ((b.float() - z_b) * s_b)
        plain = torch.clamp(torch.round(product / s_y) + z_y, 0, 255)
        ours = ort_kernels.mul(a, b, (s_a, s_b, s_y), (z_a, z_b, z_y), 0, 255)
        differing += int((plain != ours).sum())
        assert (plain - ours).abs().max() <= 1
    assert differing > 0


def test_sigmoid_equals_the_runtime() -> None:
    for seed in range(TRIALS * 4):
        numbers = random_numbers(seed, "a")
        scale, zero = 4 * numbers["a"][0], numbers["a"][1]
        numbers = {"a": (scale, zero), "y": (float(np.float32(1 / 255)), 0)}
        theirs = session("Sigmoid", numbers).run(None, {"a": ALL.reshape(1, 1, 16, 16)})[0]
        ours = ort_kernels.sigmoid(torch.from_numpy(ALL), float(np.float32(scale)), zero, *numbers["y"], 0, 255)
        assert ours.numpy().astype(np.uint8).tolist() == theirs.reshape(-1).tolist(), f"seed {seed}"


def test_sigmoid_on_a_tie_follows_the_runtime_and_not_the_better_sigmoid() -> None:
    # A layer of yolov8n: code 125 gives 174.50001 output steps, and 174.49999 by the runtime's polynomial.
    numbers = {"a": (0.04550987854599953, 108), "y": (0.003921568859368563, 0)}
    theirs = session("Sigmoid", numbers).run(None, {"a": ALL.reshape(1, 1, 16, 16)})[0].reshape(-1)
    ours = ort_kernels.sigmoid(torch.from_numpy(ALL), *numbers["a"], *numbers["y"], 0, 255)
    assert ours.numpy().astype(np.uint8).tolist() == theirs.tolist()
    x = (125 - 108) * torch.tensor(0.04550987854599953)
    better = torch.round(torch.sigmoid(x.double()).float() / torch.tensor(0.003921568859368563))
    assert (float(ours[125]), float(better)) == (174.0, 175.0)


def test_logistic_is_the_runtime_s_float_sigmoid() -> None:
    x = np.random.default_rng(0).uniform(-20, 20, 200_000).astype(np.float32)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Sigmoid", ["x"], ["y"])], "one", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    theirs = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    differing = int((ort_kernels.logistic(torch.from_numpy(x)).numpy() != theirs).sum())
    # A fused multiply-add in float64 rounds twice: off where the first of the roundings makes a tie, once in 2**29.
    # There are 9 of them for each x, so fewer than one in 200,000 is expected; 2 has a chance below 1e-4.
    assert differing <= 1


def test_accumulators_round_half_to_even_before_the_zero_point_is_added() -> None:
    accumulator = torch.tensor([1.0, 3.0, -1.0, 5.0], dtype=torch.float64)
    codes = ort_kernels.requantize_accumulator(accumulator, torch.tensor(0.5), 3, 0, 255)
    assert codes.tolist() == [3.0, 5.0, 3.0, 5.0]  # 0.5 -> 0, 1.5 -> 2, -0.5 -> 0, 2.5 -> 2


def test_the_multiplier_rounds_twice_as_the_runtime_does() -> None:
    scale = torch.tensor([0.1, 0.3])
    expected = [np.float32(np.float32(0.7) * np.float32(s)) / np.float32(0.9) for s in (0.1, 0.3)]
    assert ort_kernels.multiplier(0.7, scale, 0.9).numpy().tolist() == [float(value) for value in expected]
