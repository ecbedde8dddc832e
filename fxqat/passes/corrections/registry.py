"""Registry of the corrections that a policy can switch on, by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any, Protocol

from torch import fx

from fxqat.errors import Problem
from fxqat.graph.pipeline import PassReport
from fxqat.graph.site import nearest
from fxqat.passes.corrections.adaround import AdaRound
from fxqat.passes.corrections.bias_correction import BiasCorrection
from fxqat.passes.corrections.bn_reestimate import BNReestimate
from fxqat.passes.corrections.equalize import Equalize
from fxqat.passes.corrections.layerwise import Images, Material, Progress, silent
from fxqat.policy import CorrectionEntry, Policy, correction_names
from fxqat.quant.torch_ao import disable_fake_quant


class Correction(Protocol):
    """A change to a graph in place, learned from images. In practice a frozen dataclass; its fields are options."""

    @property
    def name(self) -> str:
        """As in a policy's ``corrections:``."""

    @property
    def before_ranges(self) -> bool:
        """Whether it works on the float graph, before any range is observed."""

    def __call__(self, gm: fx.GraphModule, material: Material) -> PassReport:
        """Change ``gm`` in place."""


CORRECTIONS: Mapping[str, type[Any]] = {
    correction_names.EQUALIZE: Equalize,
    correction_names.ADAROUND: AdaRound,
    correction_names.BIAS_CORRECTION: BiasCorrection,
    correction_names.BN_REESTIMATE: BNReestimate,
}
_NO_OPTIONS = ("name", "before_ranges")


def corrections(policy: Policy) -> tuple[Correction, ...]:
    """The corrections that ``policy`` switches on, in its order.

    Raises:
        Problem: with ``file:line``: an unknown name or option, an illegal value, or one that works on the float graph
            after one that needs ranges.
    """
    return _all_made(policy.corrections)


def named(wanted: Sequence[str]) -> tuple[Correction, ...]:
    """The corrections with these names, in this order, with their default options.

    Raises:
        Problem: an unknown name, or one that works on the float graph after one that needs ranges.
    """
    return _all_made([CorrectionEntry(line=0, name=name, file="corrections") for name in wanted])


def _all_made(entries: Sequence[CorrectionEntry]) -> tuple[Correction, ...]:
    made = [_made(wanted) for wanted in entries]
    for (before, after), wanted in zip(pairwise(made), entries[1:], strict=False):
        if after.before_ranges and not before.before_ranges:
            raise Problem(
                wanted.where,
                f"{after.name} stands after {before.name}, but works before ranges are chosen",
                remedy=f"move {after.name} before {before.name}",
            )
    return tuple(made)


def correct(
    gm: fx.GraphModule,
    chosen: Sequence[Correction],
    images: Images,
    *,
    before_ranges: bool,
    progress: Progress = silent,
    on_step: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Run those of ``chosen`` that belong before, or after, ranges are chosen, in place.

    Returns:
        Name, options and one line of result of each, ready for JSON.
    """
    due = [one for one in chosen if one.before_ranges == before_ranges]
    if not due:
        return []
    training = gm.training
    gm.eval()
    material = Material(images=images, reference=float_reference(gm), progress=progress)
    reports = []
    for one in due:
        if on_step is not None:
            on_step(one.name)
        reports.append({"name": one.name, "options": options(one), "says": one(gm, material).says})
    gm.train(training)
    return reports


def float_reference(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy of ``gm`` that quantizes nothing, in eval mode."""
    reference = copy.deepcopy(gm).eval()
    reference.apply(disable_fake_quant)
    return reference


def options(correction: Correction) -> dict[str, Any]:
    """A correction's options by name."""
    return {one.name: getattr(correction, one.name) for one in fields(correction) if one.name not in _NO_OPTIONS}  # type: ignore[arg-type]


def _made(wanted: CorrectionEntry) -> Correction:
    where = wanted.where
    if wanted.name not in CORRECTIONS:
        raise Problem(
            where,
            f"unknown correction {wanted.name!r}",
            expected=f"one of: {', '.join(CORRECTIONS)}",
            remedy=nearest(wanted.name, CORRECTIONS),
        )
    kind = CORRECTIONS[wanted.name]
    legal = {one.name: one.default for one in fields(kind) if one.name not in _NO_OPTIONS}
    for option, value in wanted.options.items():
        _check_option(where, wanted.name, option, value, legal)
    try:
        made: Correction = kind(**wanted.options)
        return made
    except ValueError as error:
        raise Problem(where, f"{wanted.name}: {error}") from error


def _check_option(where: str, name: str, option: str, value: object, legal: Mapping[str, Any]) -> None:
    if option not in legal:
        expected = f"one of: {', '.join(legal)}" if legal else "no options"
        raise Problem(where, f"unknown option {option!r} of {name}", expected=expected, remedy=nearest(option, legal))
    default = legal[option]
    same = isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)
    whole = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
    if default is not MISSING and not same and not whole:
        raise Problem(where, f"{name}: {option} is {value!r}", expected=f"{_WORDS[type(default)]} such as {default!r}")


_WORDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
