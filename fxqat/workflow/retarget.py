"""Retargeting: a calibrated or trained model prepared again for another runtime, with its weights and ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from fxqat.checkpoint.network import network_of, records
from fxqat.errors import Problem
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize, SizeLike
from fxqat.passes import Rules, quantizing
from fxqat.passes.calibrate import observe, use_method
from fxqat.passes.corrections.layerwise import silent
from fxqat.passes.transfer import TransferSummary, transfer
from fxqat.policy import Policy
from fxqat.quant.torch_ao import disable_observer
from fxqat.workflow.stage_checks import batches, expect_calibrated

Progress = Callable[[int, int], None]


def retarget(
    model: Detector,
    target: str,
    data: str | Path | Iterable[Tensor] | None = None,
    *,
    images_limit: int | None = None,
    imgsz: SizeLike | None = None,
    batch: int = 8,
    progress: Progress | None = None,
) -> tuple[Detector, TransferSummary]:
    """The same calibrated or trained model with the quantizers of another target.

    Weights and biases stay, and a tensor that both targets quantize keeps its range. Ranges of tensors that only the
    new one quantizes are observed on ``data``.

    Args:
        model: stage ``qat``, calibrated; stays as it is.
        target: ``ort-cpu``, ``openvino`` ..., see ``fxqat.targets.TARGETS``.
        data: as for ``calibrate``; needed where ranges are missing.
        images_limit: so many images, evenly spread; all by default.
        imgsz: one side, or height and width, multiples of the model's stride; by default as trained or calibrated.
        batch: images at a time.
        progress: called with images done and images in all.

    Returns:
        A new detector at stage ``qat``, and counts of where its quantization parameters come from.

    Raises:
        Problem: an unknown target, a policy that it cannot run, a missing range, or rules of the user's own for the
            target that are not at hand.
    """
    expect_calibrated(model, "retarget")
    size = model.imgsz if imgsz is None else ImageSize.of(imgsz)
    shown, total, _ = (None, 0, "") if data is None else batches(data, images_limit, size, batch, model, None)
    step = progress or silent
    return _lowered(model, target, shown, lambda done: step(done, max(total, done)))


def _lowered(
    model: Detector,
    target: str,
    shown: Iterable[Tensor] | None,
    progress: Callable[[int], None],
) -> tuple[Detector, TransferSummary]:
    recipe, made = model.recipe, _prepared(model, target)
    # twice: observing needs the weights, and what was observed gives way to what was calibrated or trained
    found = transfer(model.gm, made.gm, observed=False)
    if found.observed and shown is None:
        raise Problem(
            model.label,
            f"{len(found.observed)} tensors that {target} rounds have no range yet (first: {found.observed[0]})",
            expected="images to observe them on",
            remedy="give --data",
        )
    if shown is not None:
        for done in observe(made.gm, shown):
            progress(done)
        found = transfer(model.gm, made.gm, observed=True)
    history = {"from": recipe.target, **asdict(found)}
    how = {**recipe.calibration, "retargeted": [*recipe.calibration.get("retargeted", []), history]}
    return made.with_graph(made.gm, calibration=how).train(model.training), found


def _prepared(model: Detector, target: str) -> Detector:
    """The network of ``model`` with the quantizers of another target, without ranges."""
    recipe, gm = model.recipe, network_of(model)
    policy = Policy.parse(recipe.policy_text, recipe.policy_name, target=target)
    pipeline = quantizing(policy, Rules.recorded(recipe.patterns, "QUANTIZE", "retarget"))
    report = pipeline.apply(gm)
    if method := recipe.calibration.get("method"):
        use_method(gm, method)
    gm.apply(disable_observer)
    kept = [one for one in recipe.passes if one.name not in {done.name for done in pipeline.passes}]
    passes = (*kept, *records(pipeline, report))
    return model.with_graph(gm.eval(), target=policy.target.name, passes=passes)
