"""Tuning of a policy's ranges and corrections, which cost no speed, by the divergence of the output from float's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from torch import Tensor

from fxqat.policy import Policy
from fxqat.sensitivity.output_divergence import standard_error

_CERTAIN = 2.0  # standard errors that a gain must exceed
Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RangeTrial:
    """One change of a policy's ranges or corrections, and its effect on the divergence of the output.

    Attributes:
        name: of the change.
        before: nats, mean over images.
        after: the same with the change.
        error: standard error of the difference, paired by image.
    """

    name: str
    before: float
    after: float
    error: float

    @property
    def helps(self) -> bool:
        """Whether the divergence falls by more than two standard errors of the difference."""
        return self.after - self.before < -_CERTAIN * self.error

    def __str__(self) -> str:
        """``bias correction: 0.0182 -> 0.0125 nats (-31 % ± 4 %)``."""
        change, error = (100 * value / self.before for value in (self.after - self.before, self.error))
        return f"{self.name}: {self.before:.4f} -> {self.after:.4f} nats ({change:+.0f} % ± {error:.0f} %)"

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "helps": self.helps}


def improved(base: Policy, divergences: Callable[[Policy, str], Tensor]) -> tuple[Policy, tuple[RangeTrial, ...]]:
    """``base`` with each change of CHANGES that helps, tried in order, each on top of those taken before.

    Args:
        base: where to start.
        divergences: called with a policy and a name for it; returns its divergence on each image, nats, shape
            (images,), always of the same images.

    Returns:
        The policy (``base`` itself if nothing helps) and all trials.
    """
    policy, weighed = base, list[RangeTrial]()
    now = divergences(base, "the start")
    for name, change in CHANGES.items():
        content = yaml.safe_load(policy.text)
        before = yaml.safe_dump(content)
        change(content)
        if yaml.safe_dump(content) == before:
            continue
        other = Policy.parse(yaml.safe_dump(content, sort_keys=False, width=10_000), base.name)
        found = divergences(other, name)
        weighed.append(_weighed(name, now, found))
        if weighed[-1].helps:
            policy, now = other, found
    return policy, tuple(weighed)


def _weighed(name: str, before: Tensor, after: Tensor) -> RangeTrial:
    error = standard_error(after - before)
    return RangeTrial(name=name, before=float(before.mean()), after=float(after.mean()), error=error)


def before_silu(content: Content) -> None:
    """Choose the range before a SiLU by the error of that tensor instead of the error after the SiLU."""
    for spec in _histograms(content):
        if spec.get("through") == "silu":
            del spec["through"]


def largest_kept(content: Content) -> None:
    """Let ranges of least squared error clip the lower end only."""
    for spec in _histograms(content):
        if spec.get("method") == "mse":
            spec["clip"] = "low"


def largest_cut(content: Content) -> None:
    """Let ranges of least squared error clip both ends."""
    for spec in _histograms(content):
        spec.pop("clip", None)


def _percentile(content: Content) -> None:
    for spec in _histograms(content):
        if "through" not in spec and "clip" not in spec:
            spec["method"] = "percentile"


def _bias_correction(content: Content) -> None:
    chosen = content.setdefault("corrections", [])
    if "bias_correction" not in _names(chosen):
        chosen.append("bias_correction")


def _names(corrections: Sequence[str | Mapping[str, Any]]) -> list[str]:
    return [name for one in corrections for name in ([one] if isinstance(one, str) else one)]


def _histograms(content: Content) -> list[Content]:
    return [spec for spec in content.get("specs", {}).values() if spec.get("observer") == "histogram"]


# Ranges first: a correction reduces the error that remains with them.
CHANGES: Mapping[str, Callable[[Content], None]] = {
    "ranges that keep the largest values": largest_kept,
    "ranges that cut the largest values": largest_cut,
    "ranges by percentile": _percentile,
    "ranges by the error before SiLU": before_silu,
    "bias correction": _bias_correction,
}
