"""OpenVINO on the CPU."""

from __future__ import annotations

import onnx

from fxqat.quant.pair_order import Order
from fxqat.runtime.runtime import Run, Runtime


def _openvino(proto: onnx.ModelProto) -> Run:
    import openvino

    # float32 where nothing is quantized: on processors with AMX the default is bfloat16
    core = openvino.Core()
    model = core.read_model(proto.SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: list(compiled(dict(inputs)).values())


OPENVINO = Runtime(
    name="openvino",
    title="OpenVINO",
    package="openvino",
    pair_orders=(Order.ROWS, Order.TAPS),
    open=_openvino,
)
