"""How other tools make a full-integer .tflite file, see bench.peers."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import numpy as np
import onnx

import fxqat
from bench.peer_job import Job
from fxqat.runtime.tflite.tflite_file import TFLiteFile

# Images that onnx2tf compares operations with; it looks for this name in the current folder, then in the network.
_SAMPLE = "calibration_image_sample_data_20x128x128x3_float32.npy"


def _litert_float(job: Job) -> Path:
    return fxqat.export(fxqat.load(job.weights), job.folder / "float.tflite", imgsz=job.imgsz)


def ai_edge_quantizer(job: Job) -> Path:
    """Google's quantizer, int8 weights and activations, on fxqat's float file; Ultralytics calls it on its own."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    source = _litert_float(job)
    made = quantizer.Quantizer(str(source))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        made.update_quantization_recipe(regex=".*", operation_name=end, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE)
    shown = [{"images": np.ascontiguousarray(batch.transpose(0, 2, 3, 1))} for batch in job.batches()]
    result = made.calibrate({"serving_default": shown})
    path = job.folder / "model.tflite"
    made.quantize(calibration_result=result).export_model(str(path), overwrite=True)
    file = TFLiteFile.read(path)
    file.metadata = TFLiteFile.read(source).metadata
    file.write(path)
    return path


def onnx2tf(job: Job) -> Path:
    """onnx2tf's full-integer file of Ultralytics' ONNX, boxes as parts of the image: of one scale with the confidences,
    pixels would leave nothing of these."""
    from onnx2tf import convert

    proto = onnx.load(job.float_onnx)
    source, shown = job.folder / "relative.onnx", job.folder / "images.npy"
    _divide_boxes(proto, job.imgsz)
    onnx.save(proto, source)
    np.save(shown, np.concatenate([batch.transpose(0, 2, 3, 1) for batch in job.batches()]))
    with contextlib.chdir(job.folder):
        np.save(_SAMPLE, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
        convert(
            input_onnx_file_path=str(source),
            output_folder_path=str(job.folder),
            output_integer_quantized_tflite=True,
            custom_input_op_name_np_data_path=[["images", str(shown), [[[[0.0] * 3]]], [[[[1.0] * 3]]]]],
            non_verbose=True,
        )
    path = job.folder / f"{source.stem}_integer_quant.tflite"
    file = TFLiteFile.read(path)
    said = {one.key: one.value for one in proto.metadata_props}
    file.metadata = {**said, "names": {str(key): name for key, name in ast.literal_eval(said["names"]).items()}}
    file.write(path)
    return path


def _divide_boxes(proto: onnx.ModelProto, size: int) -> None:
    """Let the only output, (1, 4 + classes, boxes), give its four box rows divided by ``size``."""
    (output,) = proto.graph.output
    rows = output.type.tensor_type.shape.dim[1].dim_value
    factors = np.ones((1, rows, 1), np.float32)
    factors[:, :4] = 1 / size
    inner = f"{output.name}_pixels"
    for node in proto.graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(factors, "relative"))
    proto.graph.node.append(onnx.helper.make_node("Mul", [inner, "relative"], [output.name]))
