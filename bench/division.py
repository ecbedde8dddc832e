"""Division by the scale, or multiplication by its reciprocal: what either does to codes and to the time of a step.

    python -m bench.division [--json]

ONNX QuantizeLinear divides; torch.fake_quantize_* multiplies by 1/scale, which is rounded once more. The first table
counts codes that differ from ONNX Runtime's, and from those of the exact quotient; the second times one forward and
backward of a fake quantizer on a tensor of YOLOv8n's second layer, batch 4, at 640 pixels.

Decision: divide. Neither is nearer to the exact quotient, but only the division trains with the codes that run, and it
costs nothing: the time goes into passes over memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor

from fxqat.quant.affine import choose_qparams
from fxqat.quant.fake_quantize import FakeQuantize, make_fake_quantize
from fxqat.quant.spec import QuantSpec

SPEC = QuantSpec(signed=False, symmetric=False)
SHAPE = (4, 32, 160, 160)
COUNTED = ("multiply / runtime", "divide / runtime", "multiply / exact", "divide / exact")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--repeats", type=int, default=20, help="how often each step is timed, in turns (default 20)")
    options = parser.parse_args()
    result = {"codes": codes(), "step": step(options.repeats), "threads": torch.get_num_threads()}
    print(json.dumps(result) if options.json else table(result))


def codes() -> list[dict[str, Any]]:
    """Of each kind of input: values, and how many codes of either way differ from each reference."""
    rows = []
    session = onnxruntime.InferenceSession(quantize_linear(), providers=["CPUExecutionProvider"])
    for name, make in (("random normal", random_values), ("aimed at ties", tie_values)):
        row = dict.fromkeys(("values", *COUNTED), 0)
        for seed in range(40):
            generator = torch.Generator().manual_seed(seed)
            scale = torch.rand(1, generator=generator) * 0.1 + 1e-3
            x = make(scale, generator)
            exact = (x.double() / scale.double()).round().clamp(-128, 127)
            runtime = torch.from_numpy(session.run(None, {"x": x.numpy(), "s": scale.numpy().reshape(())})[0])
            for way, steps in (("multiply", x * scale.reciprocal()), ("divide", x / scale)):
                rounded = steps.round().clamp(-128, 127)
                row[f"{way} / runtime"] += int((rounded != runtime).sum())
                row[f"{way} / exact"] += int((rounded != exact).sum())
            row["values"] += x.numel()
        rows.append({"input": name, **row})
    return rows


def quantize_linear() -> bytes:
    """An ONNX model of one QuantizeLinear to int8: x, s -> code."""
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])],
        "quantize",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("q", TensorProto.INT8, [None])],
        [helper.make_tensor("z", TensorProto.INT8, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return bytes(model.SerializeToString())


def random_values(scale: Tensor, generator: torch.Generator) -> Tensor:
    """30,000 values, a standard deviation of 40 steps."""
    return torch.randn(30_000, generator=generator) * 40 * scale


def tie_values(scale: Tensor, generator: torch.Generator) -> Tensor:
    """Every tie between -128 and 127 and its float neighbours, three to either side."""
    ties = ((torch.arange(-128, 127) + 0.5) * scale).numpy().view(np.int32)
    return torch.from_numpy(np.concatenate([ties + shift for shift in range(-3, 4)]).view(np.float32))


def step(repeats: int) -> dict[str, float]:
    """Median milliseconds of forward and backward of each way, timed in turns."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 3
    upstream = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    divide = make_fake_quantize(SPEC)
    divide.disable_observer()
    divide.load_qparams(choose_qparams(x.min(), x.max(), SPEC))
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "divide": divide,
        "multiply": multiplying(divide),
        "aten": aten(divide),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            times[name].append(timed(way, x, upstream))
    return {name: round(statistics.median(taken[1:]), 3) for name, taken in times.items()}


def timed(way: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> float:
    """Milliseconds of one forward and backward."""
    leaf = x.detach().requires_grad_()
    start = time.perf_counter()
    way(leaf).backward(upstream)
    return (time.perf_counter() - start) * 1e3


def multiplying(divide: FakeQuantize) -> Callable[[Tensor], Tensor]:
    """The same quantizer with the one division replaced by a product: the reciprocal is its scale's stand-in."""
    numbers = divide.qparams()
    lowest = float(numbers.quant_min - int(numbers.zero_point))
    highest = float(numbers.quant_max - int(numbers.zero_point))
    scale, reciprocal = numbers.scale, numbers.scale.reciprocal()

    class Multiply(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            rounded = x.mul(reciprocal).round_().clamp_(lowest, highest)
            return torch.add(rounded.new_zeros(()), rounded, alpha=float(scale), out=rounded)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            ends = (lowest - 0.5) * float(scale), (highest + 0.5) * float(scale)
            return torch.ops.aten.hardtanh_backward(grads[0], ctx.saved_tensors[0], *ends)

    return Multiply.apply


def aten(divide: FakeQuantize) -> Callable[[Tensor], Tensor]:
    """torch.fake_quantize_per_tensor_affine with the same numbers."""
    numbers = divide.qparams()
    scale, zero_point = float(numbers.scale), int(numbers.zero_point)
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, numbers.quant_min, numbers.quant_max)


def table(result: dict[str, Any]) -> str:
    """The result as plain text."""
    lines = [f"{'codes that differ':<18}{'values':>10}" + "".join(f"{name:>20}" for name in COUNTED)]
    for row in result["codes"]:
        counts = "".join(f"{row[name]:>10} {row[name] / row['values']:>8.4%}" for name in COUNTED)
        lines.append(f"{row['input']:<18}{row['values']:>10}{counts}")
    took = result["step"]
    lines += [
        "",
        f"{'fake quantizer':<16}{'ms a step':>10}{'against divide':>20}   ({result['threads']} threads, {SHAPE})",
    ]
    lines += [f"{name:<16}{ms:>10.2f}{ms / took['divide']:>19.2f}x" for name, ms in took.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
