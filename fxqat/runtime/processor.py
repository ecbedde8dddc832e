"""This machine's processor, and whether runtimes here add two products of 8 bits in 16 bits."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info

from fxqat.runtime.runtimes import RUNTIMES

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
_WIDE = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # they add products of 8 bits in 32


@dataclass(frozen=True, kw_only=True)
class Processor:
    """The processor that this process runs on.

    Attributes:
        name: as the operating system calls it.
        flags: those extensions, of the ones that integer kernels use, that it reports, under Linux's names.
    """

    name: str
    flags: tuple[str, ...] = ()

    @property
    def dot_products(self) -> bool:
        """Whether it reports an instruction that adds products of 8 bits in 32."""
        return bool(_WIDE & set(self.flags))

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.flags) or 'no known extension'})"


@cache
def processor() -> Processor:
    """This machine's; where the system tells no extensions, only its name."""
    try:
        words = Path("/proc/cpuinfo").read_text()
    except OSError:
        return Processor(name=_sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine())
    model = re.search(r"^model name\s*:\s*(.+)$", words, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", words, re.MULTILINE)
    here = set(flags.group(1).split()) if flags else set()
    return Processor(
        name=model.group(1).strip() if model else platform.machine(), flags=tuple(one for one in _FLAGS if one in here)
    )


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


@cache
def saturates(runtime: str) -> bool:
    """Whether a runtime that is installed here adds two products in 16 bits: where its kernels pair products at all,
    that is found by letting it compute one such sum.

    Args:
        runtime: a name from ``fxqat.runtime.runtimes.RUNTIMES``.
    """
    if not RUNTIMES[runtime].pair_orders:
        return False
    (code,) = RUNTIMES[runtime].open(_two_products())({"x": np.ones((1, 4, 1, 1), np.float32)})
    return bool(np.abs(code - 255.0).max() > 0.5)


def _two_products() -> onnx.ModelProto:
    """``255 * 127 + 255 * 127 = 64770`` at a scale that makes it code 255; added in 16 bits it is 32767, code 129."""
    out = 64770 / 255
    numbers = [
        make_tensor("x_scale", onnx.TensorProto.FLOAT, [], [1 / 255]),
        make_tensor("w_scale", onnx.TensorProto.FLOAT, [], [255.0]),
        make_tensor("y_scale", onnx.TensorProto.FLOAT, [], [out]),
        make_tensor("zero", onnx.TensorProto.UINT8, [], [0]),
        make_tensor("w_zero", onnx.TensorProto.INT8, [], [0]),
        make_tensor("w", onnx.TensorProto.INT8, [8, 4, 1, 1], [127, 127, 0, 0] * 8),
        make_tensor("one", onnx.TensorProto.FLOAT, [], [out]),
    ]
    nodes = [
        make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_codes"]),
        make_node("DequantizeLinear", ["x_codes", "x_scale", "zero"], ["x_floats"]),
        make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_floats"]),
        make_node("Conv", ["x_floats", "w_floats"], ["sums"], kernel_shape=[1, 1]),
        make_node("QuantizeLinear", ["sums", "y_scale", "zero"], ["y_codes"]),
        make_node("DequantizeLinear", ["y_codes", "y_scale", "zero"], ["y_floats"]),
        make_node("Div", ["y_floats", "one"], ["y"]),
    ]
    graph = make_graph(
        nodes,
        "two_products",
        [make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 1, 1])],
        [make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8, 1, 1])],
        numbers,
    )
    return make_model(graph, opset_imports=[make_opsetid("", 13)], ir_version=8)
