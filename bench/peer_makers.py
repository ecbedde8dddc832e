"""How each tool makes an INT8 file from one checkpoint, with its documented defaults: what bench.peers measures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import fxqat
from bench.litert_makers import ai_edge_quantizer, onnx2tf
from bench.peer_job import Job
from fxqat.models import offline

_LAST = "/model.22/"  # Detect, in Ultralytics' names of ONNX nodes


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool with one way to use it: the package it needs, what it writes, and where accuracy is measured."""

    name: str
    title: str
    make: Callable[[Job], Path]
    package: str = "ultralytics"
    runtime: str = "onnxruntime"


def _ultralytics(job: Job, **options: Any) -> Path:
    offline.quiet()
    from ultralytics import YOLO

    copy = shutil.copy(job.weights, job.folder / f"{job.weights.stem}.pt")
    return Path(YOLO(copy).export(**{"format": "onnx", "imgsz": job.imgsz, **options}))


def _ultralytics_qat(job: Job) -> Path:
    """Ultralytics' recommended recipe (its documentation of quantize=8), 5 epochs on the calibration images."""
    offline.quiet()
    from ultralytics import YOLO

    recipe = {"optimizer": "AdamW", "lr0": 1e-5, "lrf": 0.1, "cos_lr": True, "mosaic": 0.0, "warmup_epochs": 0.5}
    model = YOLO(job.weights)
    model.train(
        data=str(job.calibration), epochs=5, quantize=8, batch=16, imgsz=job.imgsz, device="cpu", workers=0,
        project=str(job.folder), name="run", exist_ok=True, plots=False, **recipe,
    )  # fmt: skip
    return Path(YOLO(job.folder / "run" / "weights" / "best.pt").export(format="onnx", imgsz=job.imgsz))


class _Reader:
    """onnxruntime's CalibrationDataReader."""

    def __init__(self, job: Job) -> None:
        self.rest = job.batches()

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.rest, None)
        return None if batch is None else {"images": batch}


def _ort(job: Job, options: Callable[[Any, onnx.ModelProto], Mapping[str, Any]]) -> Path:
    from onnxruntime import quantization

    path = job.folder / "model.onnx"
    chosen = options(quantization, onnx.load(job.float_onnx))
    quantization.quantize_static(str(job.float_onnx), str(path), _Reader(job), **chosen)
    _copy_metadata(job.float_onnx, path)
    return path


def _decode(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes of Detect that stand behind its branches."""
    found = [node.name for node in proto.graph.node if node.name.startswith(_LAST)]
    return [name for name in found if not name.startswith((f"{_LAST}cv2", f"{_LAST}cv3"))]


def _float_head(quantization: Any, proto: onnx.ModelProto) -> dict[str, Any]:
    """uint8 activations, int8 weights per channel; the six output convolutions and the decode in float."""
    names = [node.name for node in proto.graph.node if node.name.startswith((f"{_LAST}cv2", f"{_LAST}cv3"))]
    outputs = [name for name in names if name.rsplit("/", 2)[-2].endswith((".0.2", ".1.2", ".2.2"))]
    excluded = [*outputs, *_decode(proto)]
    return {
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
        "per_channel": True,
        "nodes_to_exclude": excluded,
    }


def _percentile(quantization: Any, proto: onnx.ModelProto) -> dict[str, Any]:
    return {
        **_float_head(quantization, proto),
        "calibrate_method": quantization.CalibrationMethod.Percentile,
        "extra_options": {"CalibPercentile": 99.999},
    }


def _nncf_onnx(job: Job, *, decode: bool) -> Path:
    """``decode``: whether the decode is quantized too, as NNCF does unless it is told not to."""
    import nncf

    dataset = nncf.Dataset(job.batches(), lambda batch: {"images": batch})
    source = onnx.load(job.float_onnx)
    ignored = None if decode else nncf.IgnoredScope(names=_decode(source))
    proto = nncf.quantize(source, dataset, subset_size=job.images, ignored_scope=ignored)
    path = job.folder / "model.onnx"
    onnx.save(proto, path)
    _copy_metadata(job.float_onnx, path)
    return path


def _nncf_openvino(job: Job) -> Path:
    import nncf
    import openvino

    model = openvino.Core().read_model(job.float_onnx)
    quantized = nncf.quantize(model, nncf.Dataset(job.batches()), subset_size=job.images)
    path = job.folder / "model.xml"
    openvino.save_model(quantized, path)
    return path


def _ultralytics_openvino(job: Job) -> Path:
    """NNCF as Ultralytics calls it: Detect and every Sigmoid stay in float."""
    folder = _ultralytics(job, format="openvino", quantize=8, data=str(job.calibration))
    return next(folder.glob("*.xml"))


def _torch_ao(job: Job) -> Path:
    """torch.ao's FX graph mode, the only one that needs no other package; it has no ONNX export of its own."""
    import torch
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx
    from ultralytics import YOLO

    offline.quiet()
    model = YOLO(job.weights).model.eval()
    example = (torch.zeros(1, 3, job.imgsz, job.imgsz),)
    prepared = quantize_fx.prepare_fx(model, get_default_qconfig_mapping("x86"), example)
    raise NotImplementedError(f"traces to {len(prepared.graph.nodes)} nodes, but exports no ONNX")


def _fxqat(job: Job, policy: str, target: str, suffix: str = ".onnx") -> Path:
    qat, _ = fxqat.prepare(fxqat.load(job.weights), policy, target=target)
    qat = fxqat.calibrate(qat, job.calibration, images_limit=job.images, imgsz=job.imgsz)
    fxqat.save(qat, job.folder / "model.fxqat")
    return fxqat.export(qat, job.folder / f"model{suffix}", imgsz=job.imgsz)


def _retargeted(job: Job, policy: str, target: str) -> Path:
    """From the file that ``_fxqat`` made for ONNX Runtime: no image is looked at again."""
    qat = fxqat.load(job.folder.parent / f"fxqat_ort_{policy.removeprefix('yolov8_')}" / "model.fxqat")
    made, _ = fxqat.retarget(qat, target)
    fxqat.save(made, job.folder / "model.fxqat")
    return fxqat.export(made, job.folder / "model.onnx", imgsz=job.imgsz)


def _copy_metadata(source: Path, path: Path) -> None:
    """Class names and the like, which these tools drop."""
    proto, old = onnx.load(path), onnx.load(source)
    onnx.helper.set_model_props(proto, {one.key: one.value for one in old.metadata_props})
    onnx.save(proto, path)


_KEPT = 48
LITERT_BASE = "ultralytics_litert_fp32"  # what LiteRT files' speed is compared with
_CRITICAL, _W8A8 = "critical", "w8a8"
PEERS = (
    Peer(name="ultralytics_fp32", title="Ultralytics ONNX FP32", make=_ultralytics),
    Peer(
        name="ultralytics_int8",
        title="Ultralytics `quantize=8`",
        make=lambda job: _ultralytics(job, quantize=8, data=str(job.calibration)),
    ),
    Peer(
        name="ultralytics_qat",
        title="Ultralytics QAT, 5 epochs",
        make=_ultralytics_qat,
        package="modelopt",
    ),
    Peer(
        name="ort_defaults",
        title="`quantize_static`, defaults",
        make=lambda job: _ort(job, lambda quantization, proto: {}),
        package="onnxruntime",
    ),
    Peer(
        name="ort_uint8",
        title="`quantize_static`, uint8, float head",
        make=lambda job: _ort(job, _float_head),
        package="onnxruntime",
    ),
    Peer(
        name="ort_percentile",
        # it keeps every tensor of every image: 0.26 GB an image, more than 21 GB for 128
        title=f"the same, percentile 99.999, {_KEPT} images",
        make=lambda job: _ort(replace(job, images=min(job.images, _KEPT)), _percentile),
        package="onnxruntime",
    ),
    Peer(name="nncf_onnx", title="NNCF, ONNX", make=lambda job: _nncf_onnx(job, decode=True), package="nncf"),
    Peer(
        name="nncf_onnx_decode",
        title="NNCF, ONNX, decode in float",
        make=lambda job: _nncf_onnx(job, decode=False),
        package="nncf",
    ),
    Peer(name="nncf_openvino", title="NNCF, OpenVINO IR", make=_nncf_openvino, package="nncf", runtime="openvino"),
    Peer(
        name="ultralytics_openvino",
        title="Ultralytics `quantize=8` (NNCF)",
        make=_ultralytics_openvino,
        package="nncf",
        runtime="openvino",
    ),
    Peer(name="torch_ao", title="torch.ao FX graph mode", make=_torch_ao, package="torch"),
    Peer(
        name="fxqat_ort_critical",
        title="fxqat critical, ort-cpu",
        make=lambda job: _fxqat(job, _CRITICAL, "ort-cpu"),
    ),
    Peer(name="fxqat_ort_w8a8", title="fxqat w8a8, ort-cpu", make=lambda job: _fxqat(job, _W8A8, "ort-cpu")),
    Peer(
        name="fxqat_openvino_w8a8",
        title="fxqat w8a8, retargeted to openvino",
        make=lambda job: _retargeted(job, _W8A8, "openvino"),
        runtime="openvino",
    ),
    Peer(
        name="fxqat_openvino_critical",
        title="fxqat critical, retargeted to openvino",
        make=lambda job: _retargeted(job, _CRITICAL, "openvino"),
        runtime="openvino",
    ),
    Peer(
        name="fxqat_tensorrt_w8a8",
        # evaluated in ONNX Runtime: OpenVINO's low-precision passes (2026.4) compute the convolution behind a Concat of
        # signed codes wrong, on processors with VNNI too (mAP 0.0065); with them switched off, or the same codes as
        # uint8 of zero point 128, it computes what ONNX Runtime does
        title="fxqat w8a8, retargeted to tensorrt",
        make=lambda job: _retargeted(job, _W8A8, "tensorrt"),
    ),
    Peer(
        name=LITERT_BASE,
        title="Ultralytics LiteRT FP32",
        make=lambda job: _ultralytics(job, format="litert"),
        package="litert_torch",
        runtime="litert",
    ),
    Peer(
        name="ultralytics_litert_int8",
        title="Ultralytics LiteRT `quantize=8` (AI Edge Quantizer)",
        make=lambda job: _ultralytics(job, format="litert", quantize=8, data=str(job.calibration)),
        package="litert_torch",
        runtime="litert",
    ),
    Peer(
        name="ai_edge_quantizer",
        title="AI Edge Quantizer, fxqat's float conversion",
        make=ai_edge_quantizer,
        package="ai_edge_quantizer",
        runtime="litert",
    ),
    Peer(
        name="onnx2tf",
        title="onnx2tf, full integer",
        make=onnx2tf,
        package="onnx2tf",
        runtime="litert",
    ),
    Peer(
        name="fxqat_litert_critical",
        title="fxqat critical, litert",
        make=lambda job: _fxqat(job, _CRITICAL, "litert", ".tflite"),
        package="litert_torch",
        runtime="litert",
    ),
    Peer(
        name="fxqat_litert_w8a8",
        title="fxqat w8a8, litert",
        make=lambda job: _fxqat(job, _W8A8, "litert", ".tflite"),
        package="litert_torch",
        runtime="litert",
    ),
)
