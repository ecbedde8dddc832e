"""A process that runs every ONNX file of a folder; started on an emulated processor, so it imports little.

Arguments: ``ort`` or ``openvino``, the folder, the folder of its answers. ``inputs.npz`` holds every file's inputs by
name; ``NAME.npz`` gets NAME.onnx's outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def onnx_runtime(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def openvino(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from openvino import Core

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = Core().compile_model(path, "CPU", hints)
    return {output.get_any_name(): value for output, value in compiled(inputs).items()}


if __name__ == "__main__":
    runtime, folder, answers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    run = {"ort": onnx_runtime, "openvino": openvino}[runtime]
    with np.load(folder / "inputs.npz") as stored:
        given = dict(stored)
    for path in sorted(folder.glob("*.onnx")):
        np.savez(answers / f"{path.stem}.npz", **run(path, given))
