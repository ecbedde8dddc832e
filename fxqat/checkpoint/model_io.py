"""Detectors in and out of files."""

from __future__ import annotations

from pathlib import Path

from torch import fx

from fxqat.checkpoint import fxqat_format
from fxqat.checkpoint.vocabulary import present
from fxqat.errors import Problem
from fxqat.files import check_suffix
from fxqat.graph.deserialize import Unreadable, build
from fxqat.graph.serialize import Unwritable, write
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, Recipe
from fxqat.passes.quant_graph import QuantGraph, quant_info


def load(model: str | Path, *, trust: bool = False, classes: int | None = None, nms_free: bool = False) -> Detector:
    """A detector from an Ultralytics checkpoint (.pt), an architecture (``yolov8n.yaml``), or a .fxqat file.

    A .fxqat file needs neither Ultralytics nor the policy, rules and passes that it was made with.

    Args:
        model: path, or a name that Ultralytics knows.
        trust: let a .pt run code (see ``fxqat.models.load``).
        classes: number of classes, for an architecture.
        nms_free: let a YOLOv10 or YOLO26 predict by the branches that need no non-maximum suppression; by default it
            predicts as ``ultralytics.YOLO`` does.

    Raises:
        Problem: no such file, not a detector, a head without such branches, unsafe, damaged, or built of something
            outside the vocabulary (``fxqat.checkpoint.vocabulary``).
    """
    path = Path(model)
    _check_classes(path, classes)
    if path.suffix == ".fxqat":
        return _restored(path)
    if path.suffix == ".onnx":
        raise Problem(
            path,
            "is an exported file",
            expected="a .pt, .yaml or .fxqat file",
            remedy="start from the checkpoint it was made of",
        )
    return _traced(model, trust, classes, nms_free)


def _check_classes(path: Path, classes: int | None) -> None:
    if classes is None:
        return
    if path.suffix not in {".yaml", ".yml"}:
        raise Problem("classes", f"{path.name} has its own", expected="a number of classes for an architecture alone")
    if classes < 1:
        raise Problem("classes", str(classes), expected="1 or more")


def save(model: Detector, path: str | Path) -> Path:
    """Write a detector to a .fxqat file, atomically.

    Raises:
        Problem: the path cannot be written, or the graph has something outside the vocabulary
            (``fxqat.checkpoint.vocabulary``).
    """
    path = Path(path)
    check_suffix(path, ".fxqat")
    try:
        graph = write(model.gm, present())
    except Unwritable as error:
        raise Problem(
            path,
            f"cannot hold the graph: {error}",
            expected="what the vocabulary has a word for",
            remedy="add one, see fxqat.checkpoint.vocabulary",
        ) from error
    content = fxqat_format.Content(
        source=model.source,
        recipe=model.recipe,
        graph=graph,
        network=model.network if model.stage == "qat" else None,
        tensors={name: tensor for name, tensor in model.gm.state_dict().items() if name not in graph["same"]},
    )
    fxqat_format.write(path, content)
    return path


def _traced(model: str | Path, trust: bool, classes: int | None, nms_free: bool) -> Detector:
    # here: Ultralytics takes seconds to import, and a .fxqat file does not need it
    from fxqat.models import offline
    from fxqat.models.load import build as build_model
    from fxqat.models.load import fetched, load_pt, without_nms
    from fxqat.models.trace import trace

    offline.quiet()
    path = Path(model)
    is_checkpoint = path.suffix == ".pt"
    float_model, source = load_pt(fetched(path), trust=trust) if is_checkpoint else build_model(model, classes=classes)
    source = without_nms(float_model, source) if nms_free else source
    return Detector(trace(float_model, source.name), source, Recipe()).eval()


def _restored(path: Path) -> Detector:
    raw = fxqat_format.read(path)
    if raw.header["format"] == 1:
        from fxqat.checkpoint import format1

        return format1.restored(raw, path)
    content = fxqat_format.content(raw, path)
    try:
        gm = build(content.graph, content.tensors, present())
        if content.recipe.stage == "qat":
            _check_quantizers(gm)
    except Unreadable as error:
        raise Problem(
            path,
            f"holds no graph of the vocabulary: {error}",
            remedy="make it again, or add the word (fxqat.checkpoint.vocabulary)",
        ) from error
    return Detector(gm, content.source, content.recipe, content.network, label=str(path)).eval()


def _check_quantizers(gm: fx.GraphModule) -> None:
    """Refuse notes that name a quantizer which the graph does not have."""
    known = {None, *QuantGraph(gm).quantizers_by_path()}
    for node in gm.graph.nodes:
        if (path := quant_info(node).quantizer) not in known:
            raise Unreadable(f"node {site_of(node)}: its note names the quantizer {str(path)[:80]!r}, which is none")
