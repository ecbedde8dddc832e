"""The verbs: every arrow of the data flow as a function. The CLI is a thin layer over these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from fxqat.checkpoint.model_io import load, save
from fxqat.checkpoint.network import described, policy_of, records
from fxqat.data.batches import Batches
from fxqat.errors import Problem
from fxqat.graph.pass_text import parse_passes
from fxqat.graph.pipeline import Between, Pass, Pipeline, Report
from fxqat.models.detector import Detector
from fxqat.passes import Rules, converting, fusing, preparing, quantizing
from fxqat.passes.calibrate import observe, use_method
from fxqat.passes.corrections.layerwise import Images, silent
from fxqat.passes.corrections.registry import correct, corrections
from fxqat.policy import Policy
from fxqat.quant.torch_ao import disable_observer
from fxqat.relower import retarget
from fxqat.runtime import litert_export, onnx_export
from fxqat.runtime.sessions import chosen as chosen_runtimes
from fxqat.runtime.sessions import fixed_sizes
from fxqat.runtime.verify import Verification, verify_images
from fxqat.stage_checks import batches, expect, expect_calibrated, expect_uncorrected

__all__ = [
    "calibrate",
    "convert",
    "export",
    "get_critical_layers",
    "load",
    "prepare",
    "retarget",
    "save",
    "train",
    "verify",
]
Files = Sequence[str | Path]
Progress = Callable[[int, int], None]


def prepare(
    model: Detector | str | Path,
    policy: str | Path | Policy,
    *,
    target: str | None = None,
    patterns: Files = (),
    passes: Sequence[Pass] | str = (),
    between: Between | None = None,
) -> tuple[Detector, Report]:
    """Fuse the model and insert the policy's quantizers; they refuse to run until they are calibrated.

    Args:
        model: a float detector, or what ``load`` takes.
        policy: a policy, its path, or the name of a shipped one.
        target: the runtime to prepare for, instead of the policy's: ``ort-cpu``, ``openvino`` ..., see
            ``fxqat.targets.TARGETS``.
        patterns: rule files of your own; their rules come before the shipped ones.
        passes: passes of your own, run on the fused graph before the policy is applied; or their text, such as
            ``swap_activation{sites=model.0.**,to=relu}``, which may name those of ``patterns``.
        between: called between any two passes.

    Returns:
        A new detector at stage ``qat``, and what each pass did.
    """
    detector = model if isinstance(model, Detector) else load(model)
    expect(detector, "float", "prepare")
    if not isinstance(policy, Policy):
        policy = Policy.load(policy, target=target)
    elif target is not None:
        policy = Policy.parse(policy.text, policy.name, target=target)
    rules = Rules.load(*patterns)
    corrections(policy)  # what calibrate would refuse is refused now
    passes = parse_passes(passes, rules.passes) if isinstance(passes, str) else passes
    first, last = fusing(rules, passes), quantizing(policy, rules)
    gm, report = first.run(detector.gm, between)
    network = described(gm)
    report += last.apply(gm, between)
    gm.apply(disable_observer)
    changes: dict[str, Any] = {
        "stage": "qat",
        "policy_name": policy.name,
        "policy_text": policy.text,
        "target": policy.target.name,
        "patterns": rules.files,
        "passes": records(Pipeline((*first.passes, *last.passes)), report),
    }
    recipe = replace(detector.recipe, **changes)
    return Detector(gm, detector.source, recipe, network).train(gm.training), report


def calibrate(
    model: Detector,
    data: str | Path | Iterable[Tensor],
    *,
    images_limit: int | None = None,
    imgsz: int | None = None,
    batch: int = 8,
    method: str | None = None,
    progress: Progress | None = None,
    on_skip: Callable[[Path, str], None] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Detector:
    """Choose every range from real images, in place, with the observers that the policy names, and run its corrections.

    Ranges of an earlier calibration are forgotten; where this one is refused, they stay.

    Args:
        model: a detector at stage ``qat``.
        data: data set YAML (its train split), image folder, list file, or a list of batches
            (B, 3, H, W), float32 in 0..1 or uint8.
        images_limit: so many images, evenly spread; all by default.
        imgsz: pixels, square, a multiple of the model's stride; as trained or calibrated by default, or 640.
        batch: images at a time.
        method: ``standard``, ``percentile``, ``entropy`` or ``mse`` for every activation, instead of the policy's; by
            default what the last calibration used.
        progress: called with steps done and steps in all: images, then what each correction counts.
        on_skip: called with the path of an image that cannot be read, and why.
        on_step: called with the name of each correction before it starts.

    Raises:
        Problem: no data, an unknown method, a site that saw NaN or infinity, corrections that were applied already, or
            corrections without data that can be read again.
    """
    expect(model, "qat", "calibrate")
    expect_uncorrected(model)
    method = method or model.recipe.calibration.get("method")
    if method is not None:
        use_method(model.gm, method)
    chosen = corrections(policy_of(model.recipe))
    imgsz = model.imgsz if imgsz is None else imgsz
    shown, total, name = batches(data, images_limit, imgsz, batch, model, on_skip)
    if chosen and isinstance(shown, Batches) and shown.once:
        raise Problem("data", "can be read only once, and corrections read it again", expected="a list of batches")
    step = progress or silent
    corrected = partial(correct, model.gm, chosen, progress=step, on_step=on_step)
    again = Images(read=lambda: batches(data, images_limit, imgsz, batch, model, None)[0], total=total)
    reports = corrected(again, before_ranges=True)
    seen, sides = 0, set[int]()
    for seen in observe(model.gm, _noting_sides(shown, sides)):
        step(seen, max(total, seen))
    reports += corrected(replace(again, total=seen), before_ranges=False)
    how: dict[str, Any] = {"data": name, "images": seen, "imgsz": max(sides)}
    how.update({"method": method} if method else {}, **({"corrections": reports} if chosen else {}))
    return model.with_graph(model.gm, calibration=how)


def train(
    model: Detector,
    data: str | Path,
    *,
    folder: str | Path | None = None,
    teacher: Detector | str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    on_line: Callable[[str], None] | None = None,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Detector:
    """Train with the quantizers on (a float detector without); ``model`` stays as it is.

    The detector as given is validated first, as epoch 0. What comes back is the epoch of the highest validated
    mAP50-95: where no epoch beats epoch 0, the detector as given. ``recipe.training`` tells which.

    Args:
        model: calibrated, or float.
        data: data set YAML, with a labelled val split.
        folder: of the run, with its state after each epoch; NAME_qat in this folder by default.
        teacher: the float detector, or what ``load`` takes, for distillation; by default ``model`` with its quantizers
            off.
        resume: continue the run in ``folder`` after its last finished epoch.
        progress: called with batches done and batches in all.
        on_line: called with each line of a table, one an epoch.
        callbacks: see ``fxqat.training.callbacks``.
        options: ``epochs``, ``batch``, ``imgsz``, ``lsq``, ``unlabelled``, ``distill``, ``penalty`` and so on, see
            ``fxqat.training.config``, or any of Ultralytics' options; they overrule the policy's ``qat:`` section.

    Raises:
        Problem: an option, data set, detector or teacher that does not fit, a loss that is no number, or another
            training in ``folder``.
    """
    from fxqat.training.train import run

    teacher = load(teacher) if isinstance(teacher, (str, Path)) else teacher
    where = folder or f"{Path(model.source.name).stem}_qat"
    return run(
        model,
        data,
        where,
        teacher=teacher,
        resume=resume,
        progress=progress,
        on_line=on_line,
        callbacks=callbacks,
        options=options,
    )


def convert(model: Detector) -> tuple[Detector, Report]:
    """Lower a calibrated or trained detector to the INT8 reference graph.

    Returns:
        A new detector at stage ``int8``, and what the pass did.

    Raises:
        Problem: the detector was never calibrated, or rules of the user's own that lower it are not at hand.
    """
    expect_calibrated(model, "convert")
    rules = Rules.recorded(model.recipe.patterns, "LOWER", "convert")
    pipeline = converting(rules, policy_of(model.recipe).target)
    gm, report = pipeline.run(model.gm)
    return model.with_graph(gm, stage="int8", passes=(*model.recipe.passes, *records(pipeline, report))), report


def export(
    model: Detector,
    path: str | Path,
    *,
    imgsz: int | None = None,
    batch: int = 1,
    dynamic: bool = False,
    opset: int = 20,
    input: str = "float",
) -> Path:
    """Write a file that the target's runtime and ``ultralytics.YOLO`` load: ONNX, or .tflite for LiteRT.

    Args:
        model: stage ``int8``; a calibrated ``qat`` detector is converted first, a ``float`` one is exported in float.
        path: ends in .onnx or, for target ``litert`` and models in float, in .tflite.
        imgsz: pixels, square, a multiple of the model's stride; as trained or calibrated by default, or 640.
        batch: images at a time; with ``dynamic`` any number.
        dynamic: leave the batch size open (ONNX only).
        opset: 13 to 21 (ONNX only); the numbers are the same in all. The file has the lowest IR version that goes with
            it.
        input: ``float``: (B, 3, H, W) in 0..1; ``uint8``: the same in 0..255; ``uint8-nhwc``: (B, H, W, 3) in 0..255.
            A .tflite file takes (B, H, W, 3), ``float``, ``uint8`` or ``int8``.

    Raises:
        Problem: a bad size, opset, input or path, or a path that is not for the model's target.
    """
    if model.stage == "qat":
        model, _ = convert(model)
    if model.stage == "float":
        gm, _ = converting(Rules.load(), Policy.load("float").target).run(_float(model))
        model = model.with_graph(gm)
    imgsz = model.imgsz if imgsz is None else imgsz
    if Path(path).suffix != ".tflite":
        return onnx_export.export(model, path, imgsz=imgsz, batch=batch, dynamic=dynamic, opset=opset, input=input)
    if dynamic:
        raise Problem(path, "has a batch of one size", expected="no dynamic batch", remedy="give the size as batch")
    return litert_export.export(model, path, imgsz=imgsz, batch=batch, input=input)


def verify(
    model: Detector,
    file: str | Path,
    data: str | Path | Iterable[Tensor],
    *,
    images_limit: int | None = 8,
    imgsz: int | None = None,
    batch: int = 1,
    progress: Progress | None = None,
    runtimes: str | Sequence[str] | None = None,
) -> Verification:
    """Run the same images through the fake-quant graph, the INT8 reference graph and the file's runtimes, and count
    differing codes.

    Args:
        model: the calibrated or trained detector, stage ``qat``.
        file: exported from it.
        data: as for ``calibrate``.
        images_limit: how many images.
        imgsz: as exported; by default what the file takes, or the model was trained or calibrated at.
        batch: images at a time, for a file that leaves it free.
        progress: called with images done and images in all.
        runtimes: names from ``fxqat.runtime.sessions.RUNTIMES``, or a comma-separated list of them, or ``all``; those
            that are not installed are named in the result's ``missing``. By default ``ort``, or ``litert`` for a
            .tflite file.

    Raises:
        Problem: an unknown runtime, or none that is installed; a file that is not this model's; no image.
    """
    expect(model, "qat", "verify")
    here, missing = chosen_runtimes(runtimes, Path(file).suffix)
    if not here:
        raise Problem(
            "--runtimes", f"{missing[0].package} is not installed", remedy=f"pip install {missing[0].package}"
        )
    taken, side = fixed_sizes(Path(file))
    imgsz = side or model.imgsz if imgsz is None else imgsz
    shown, total, _ = batches(data, images_limit, imgsz, taken or batch, model, None)
    int8, _ = convert(model)
    step = progress or silent
    found = verify_images(model, int8, Path(file), shown, lambda done: step(done, total), runtimes=here)
    return replace(found, missing=tuple(one.name for one in missing))


def get_critical_layers(
    model: Detector,
    data: str | Path,
    *,
    share: float = 0.5,
    by: str = "probe",
    images_limit: int | None = 32,
    imgsz: int | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """The fewest sites that cause ``share`` of the harm quantization does, most harmful first, as a policy names them.

    Args:
        model: calibrated, stage ``qat``; what is in float there cannot be critical.
        data: data set YAML, image folder or list file.
        share: of the summed harm, 0..1.
        by: ``probe``, ``output`` or ``mAP``, see ``fxqat.sensitivity.sensitivity``.
        images_limit: so many images, evenly spread.
        imgsz: pixels, square, a multiple of the model's stride; as trained or calibrated by default, or 640.
        work: folder in which finished rows are kept.
        progress: called with steps done and steps in all.

    Raises:
        Problem: never calibrated, or no data.
    """
    from fxqat.sensitivity.sensitivity import Asked, measure

    asked = Asked(by=by, images_limit=images_limit, imgsz=model.imgsz if imgsz is None else imgsz)
    return measure(model, data, asked, work=work, progress=progress or silent).critical(share)


def _noting_sides(batches: Iterable[Tensor], sides: set[int]) -> Iterator[Tensor]:
    """``batches``; ``sides`` receives their heights and widths."""
    for batch in batches:
        sides.update(batch.shape[2:])
        yield batch


def _float(model: Detector) -> fx.GraphModule:
    gm, _ = preparing(Policy.load("float"), Rules.load()).run(model.gm)
    return gm
