"""The reference evaluator of the package onnx."""

from __future__ import annotations

import onnx

from fxqat.runtime.runtime import Run, Runtime


def _reference(proto: onnx.ModelProto) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(proto)
    return lambda inputs: evaluator.run(None, dict(inputs))


ONNX_REFERENCE = Runtime(name="onnx", title="onnx.reference", package="onnx", open=_reference)
