"""What a prepared detector keeps of its way: the float network before the policy, and the passes as they ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import fx

from fxqat.checkpoint.vocabulary import present
from fxqat.errors import Problem
from fxqat.graph.deserialize import Unreadable, build
from fxqat.graph.pipeline import Pass, Pipeline, Report
from fxqat.graph.serialize import Structure, Unwritable, write
from fxqat.models.detector import Detector, PassRecord, Recipe
from fxqat.policy import Policy

_NO_OPTIONS = ("name", "requires", "gives")


def described(gm: fx.GraphModule) -> Structure | None:
    """A fused network without its numbers, or None where it has something that no file holds: saving says what."""
    try:
        return write(gm, present())
    except Unwritable:
        return None


def network_of(model: Detector) -> fx.GraphModule:
    """The fused float network that ``model`` was prepared from, before its policy, with copies of ``model``'s numbers.

    Args:
        model: stage ``qat``.

    Raises:
        Problem: it is not known, or rules of the user's own have renamed what has numbers.
    """
    if model.network is None:
        raise Problem(
            model.label, "does not know the float network it was prepared from", remedy="run fxqat prepare again"
        )
    tensors = {name: tensor.detach().clone() for name, tensor in model.gm.state_dict().items()}
    try:
        return build(model.network, tensors, present()).eval()
    except Unreadable as error:
        what = f"its float network cannot be built again ({error})"
        raise Problem(model.label, what, remedy="run fxqat prepare again") from error


def policy_of(recipe: Recipe) -> Policy:
    """The policy that a detector was prepared with, for the target it was prepared for."""
    return Policy.parse(recipe.policy_text, recipe.policy_name, target=recipe.target, recorded=True)


def records(pipeline: Pipeline, report: Report) -> tuple[PassRecord, ...]:
    """The passes of ``pipeline`` as they ran."""
    return tuple(
        PassRecord(
            name=step.name,
            options=_options(one),
            says=step.report.says,
            milliseconds=round(step.seconds * 1e3, 1),
            diff=step.diff,
        )
        for one, step in zip(pipeline.passes, report.steps, strict=True)
    )


def _options(one: Pass) -> Mapping[str, Any]:
    names: list[str] = [field.name for field in fields(one)] if is_dataclass(one) else []
    return {name: _told(getattr(one, name)) for name in names if name not in _NO_OPTIONS}


def _told(value: Any) -> Any:
    """``value`` in JSON's types; what has a name is called by it, anything else by its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _told(one) for key, one in value.items()}
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else type(value).__name__
