"""Options and result of a search for a policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy
from fxqat.evaluation.bootstrap import Drift
from fxqat.evaluation.latency import Latency
from fxqat.models.image_size import ImageSize
from fxqat.policy import Policy
from fxqat.search.candidates import Candidate
from fxqat.search.range_tuning import RangeTrial


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is asked of the policy: see ``search``. ``imgsz`` None is the size that the model was trained at."""

    max_drop: float = 0.2
    images_limit: int | None = None
    probe_images: int = 32
    probes: int = 4
    imgsz: ImageSize | None = None
    threads: int = 2
    split: str = "val"
    candidates: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "imgsz", None if self.imgsz is None else ImageSize.of(self.imgsz))
        if not self.max_drop >= 0:
            raise Problem("--max-drop", f"{self.max_drop}", expected="points of mAP50-95, 0 or more")


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """A policy that was built and measured.

    Attributes:
        candidate: what is in float, and what was known of it before.
        numbers: the policy whose ranges and corrections it has.
        file: exported.
        accuracy: of the file in ONNX Runtime.
        drift: from the float model's file, points.
    """

    candidate: Candidate
    numbers: Policy
    file: Path
    accuracy: Accuracy
    drift: Drift


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search came to.

    Attributes:
        policy: the YAML.
        base: the base policy, measured.
        numbers: changes of its ranges and corrections that were weighed; those that help are in ``best``.
        best: the policy written, measured.
        latency: of float, base and best, taken in turns.
        front: every layout that was compared, that with no more in float than the base first.
        within: whether the best one's measured drop is within the budget.
    """

    policy: str
    base: PolicyResult
    best: PolicyResult
    latency: tuple[Latency, ...]
    front: tuple[Candidate, ...]
    within: bool
    numbers: tuple[RangeTrial, ...]

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "within": self.within,
            "base": _summary(self.base),
            "numbers": [one.summary() for one in self.numbers],
            "best": _summary(self.best),
            "latency": [{**one.summary(), "path": one.path.name} for one in self.latency],
            "candidates": [asdict(one) for one in self.front],
        }


def _summary(tried: PolicyResult) -> dict[str, Any]:
    return {"left_in_float": tried.candidate.left, "map5095": tried.accuracy.map5095, "drift": vars(tried.drift)}
