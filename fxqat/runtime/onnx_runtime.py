"""ONNX Runtime on the CPU, with its kernels for integers and without."""

from __future__ import annotations

import onnx

from fxqat.quant.pair_order import Order
from fxqat.runtime.runtime import Run, Runtime


def _onnx_runtime(proto: onnx.ModelProto, *, optimized: bool) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal ones alone: errors arrive as exceptions
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return lambda inputs: session.run(None, dict(inputs))


ONNX_RUNTIME = Runtime(
    name="ort",
    title="ONNX Runtime",
    package="onnxruntime",
    pair_orders=(Order.ROWS,),
    open=lambda proto: _onnx_runtime(proto, optimized=True),
)
UNOPTIMIZED = Runtime(
    name="ort-plain",
    title="ONNX Runtime, no optimizations",
    package="onnxruntime",
    open=lambda proto: _onnx_runtime(proto, optimized=False),
)
