"""Whether attention pays in integers: ``python -m bench.attention``.

One attention block between integer convolutions, from the codes of its queries, keys and values to the codes of its
result, in ONNX Runtime: with products in float (what fxqat writes), and with both products as QLinearMatMul and softmax
in float between them. The blocks are those of YOLO11n and 26n (C2PSA) and YOLO12n (A2C2f) at 640 pixels. Each file is a
process of its own, in turns (``fxqat.evaluation.latency``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from bench.command import parser, run
from fxqat.errors import Problem
from fxqat.evaluation.latency import Latency, measure

FORMS = {False: "float", True: "integer"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """Attention over ``places`` in each of ``batch`` areas: lengths of a key and of a value of each head."""

    name: str
    batch: int
    heads: int
    key: int
    value: int
    places: int

    @property
    def channels(self) -> int:
        """Of queries, keys and values together."""
        return self.heads * (2 * self.key + self.value)


BLOCKS = (
    Block(name="C2PSA of YOLO11n, 26n: 20 x 20", batch=1, heads=2, key=32, value=64, places=400),
    Block(name="A2C2f of YOLO12n: 40 x 40, 4 areas", batch=4, heads=2, key=32, value=32, places=400),
    Block(name="A2C2f of YOLO12n: 20 x 20", batch=1, heads=4, key=32, value=32, places=400),
)
# The value of a tensor in 8 bits, as QuantizeLinear and DequantizeLinear; a scale does not change the time.
_QUANTIZED = """
    {0}_codes = QuantizeLinear({0}, {1}_scale, {1}_zero)
    {0}_q = DequantizeLinear({0}_codes, {1}_scale, {1}_zero)
"""
_SPLIT = """
    read = Reshape(x_q, shape)
    {quantized_read}
    q, k, v = Split<axis = 2>({read}, sizes)
    {quantized_parts}
    turned = Transpose<perm = [0, 1, 3, 2]>({q})
    {quantized_turned}
    logits = MatMul({turned}, {k})
    {quantized_logits}
    scaled = Mul({logits}, factor)
    weights = Softmax<axis = -1>(scaled)
    {quantized_weights}
    over = Transpose<perm = [0, 1, 3, 2]>({weights})
    {quantized_over}
    seen = MatMul({v}, {over})
    {quantized_seen}
    flat = Reshape({seen}, back)
    y_codes = QuantizeLinear(flat, signed_scale, signed_zero)
    y = DequantizeLinear(y_codes, signed_scale, signed_zero)
"""
_SCALES = dict.fromkeys(("read", "q", "k", "v", "turned", "logits", "seen"), "signed") | {
    "weights": "unit",
    "over": "unit",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, time, print; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    print("| block | float, ms | integer, ms | speed of integers [95 %] |\n| --- | ---: | ---: | --- |")
    rows = []
    for block in BLOCKS:
        base, integer = _timed(block, options)
        speed = f"{integer.speed:.2f}x [{integer.speed_low:.2f}, {integer.speed_high:.2f}]"
        print(f"| {block.name} | {base.median:.2f} | {integer.median:.2f} | {speed} |", flush=True)
        rows.append({"block": block.name, "float": base.summary(), "integer": integer.summary()})
    return rows


def _timed(block: Block, options: argparse.Namespace) -> list[Latency]:
    with tempfile.TemporaryDirectory(prefix="fxqat-attention-") as folder:
        files = []
        for integer, form in FORMS.items():
            files.append(Path(folder) / f"{form}.onnx")
            onnx.save(model(block, integer), files[-1])
        if (found := products(files[1])) != {"QLinearMatMul": 2}:
            raise Problem("bench.attention", f"ONNX Runtime runs {found}", expected="2 QLinearMatMul")
        return measure(files, threads=options.threads, rounds=options.rounds, runs=options.runs)


def model(block: Block, integer: bool) -> onnx.ModelProto:
    """``x`` (batch, channels, places) to ``y`` (batch, heads * value, places), both in the values of codes."""
    names = {name: f"{name}_q" if integer else name for name in _SCALES}
    pairs = {name: _QUANTIZED.format(name, scale) if integer else "" for name, scale in _SCALES.items()}
    parts = pairs["q"] + pairs["k"] + pairs["v"]
    body = _SPLIT.format(**names, **{f"quantized_{name}": text for name, text in pairs.items()}, quantized_parts=parts)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        attention (float[{block.batch}, {block.channels}, {block.places}] x) => (float y) {{
            {_QUANTIZED.format("x", "signed")} {body}
        }}
    """
    made = onnx.parser.parse_model(text)
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in _constants(block).items())
    return made


def _constants(block: Block) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "shape": np.array([block.batch, block.heads, 2 * block.key + block.value, block.places]),
        "back": np.array([block.batch, block.heads * block.value, block.places]),
        "sizes": np.array([block.key, block.key, block.value]),
        "factor": np.array(block.key**-0.5, np.float32),
        "signed_scale": np.array(0.02, np.float32),
        "signed_zero": np.array(128, np.uint8),
        "unit_scale": np.array(1 / 255, np.float32),
        "unit_zero": np.array(0, np.uint8),
    }


def products(file: Path) -> dict[str, int]:
    """How often each product occurs in the graph that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(file.with_suffix(".optimized.onnx"))
    onnxruntime.InferenceSession(file, options)
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    return dict(Counter(kind for kind in kinds if "MatMul" in kind))


def _parser() -> argparse.ArgumentParser:
    made = parser("attention", __doc__)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--runs", type=int, default=20)
    return made


if __name__ == "__main__":
    sys.exit(main())
