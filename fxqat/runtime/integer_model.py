"""A detector in the arithmetic of the runtime that it is prepared for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor

from fxqat.models.detector import Detector, cut
from fxqat.passes import Rules, converting
from fxqat.quant.arithmetic import ARITHMETICS
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.targets import target_of


def arithmetic_of(model: Detector) -> str | None:
    """The integer arithmetic of the target that ``model`` was prepared for, by its name in fxqat.quant.arithmetic; None
    where it is not known."""
    target = target_of(model.recipe.target)
    return None if target is None else target.arithmetic


def lowered(model: Detector) -> Detector | None:
    """The detector whose exported file computes what ``executed`` does, stage ``int8``; None where that is not known.

    Args:
        model: stage ``qat``, calibrated, or ``int8``; it stays as it is, and later changes of it are not seen.

    Raises:
        Problem: rules of the user's own that lower it are not at hand.
    """
    target = target_of(model.recipe.target)
    if model.stage == "float" or target is None or target.arithmetic is None:
        return None
    if model.stage == "int8":
        return model
    rules = Rules.recorded(model.recipe.patterns, "LOWER", "computing in the runtime's integers")
    return model.with_graph(converting(rules, target).run(model.gm)[0], stage="int8")


def executed(model: Detector) -> IntegerExecution | None:
    """What the file exported from ``model`` will compute: integers, code for code, and the decode in float32.

    A fake-quantized graph computes the same in float32, where sums are rounded; beside ties that moves one code in
    400,000 of the first layer, and every layer behind it moves more: a fifth of all codes of a YOLOv8n, and 0.1 points
    of mAP either way.

    Args:
        model: see ``lowered``.

    Returns:
        ``run(images)``, images (B, 3, H, W) float32 in 0..1, gives the final outputs. None where the arithmetic is not
        known: a float model, or another runtime's target.
    """
    int8 = lowered(model)
    return None if int8 is None else in_integers(int8)


def in_integers(int8: Detector) -> IntegerExecution:
    """The execution of what ``lowered`` gave."""
    return IntegerExecution(cut(int8.gm, 0).eval(), ARITHMETICS[cast(str, arithmetic_of(int8))], keep=False)


def predictor(model: Detector) -> Callable[[Tensor], Any]:
    """The final outputs for images, as ``executed`` computes them where it can, else as ``model`` does."""
    execution = executed(model)
    return execution.run if execution is not None else lambda images: model(images)[0]
