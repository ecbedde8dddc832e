"""Everything that a report measures of a model."""

from __future__ import annotations

from dataclasses import dataclass

from fxqat.evaluation.bootstrap import Drift
from fxqat.evaluation.latency import Latency
from fxqat.report.detections import Agreement
from fxqat.runtime.bound import BOUND
from fxqat.runtime.verify import Difference
from fxqat.sensitivity.error_report import ErrorReport


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that was measured; None where it was not.

    Attributes:
        drift: of the task's metric against float, points.
        pool: images of the split that it is of; ``drift`` may be of a part of them.
        before: that metric of the float model, 0..1.
        after: of the quantized one.
        agreement: on the images.
        codes: of the INT8 reference graph against the exported file in its runtime.
        inexact: why that runtime on this machine cannot compute the file exactly.
        runtime: its name in words.
        errors: site by site.
        integer_share: multiply-adds in integers as a part of all.
        size: of the exported file, as a part of the float weights' in 32 bits.
        metric: the name of the task's metric.
        latency: of the exported file for one image, against the float network's file.
        corrected: whether corrections ran when it was calibrated.
        trained: whether the model was trained with its quantizers on.
    """

    drift: Drift | None = None
    pool: int = 0
    before: float | None = None
    after: float | None = None
    agreement: Agreement | None = None
    codes: Difference | None = None
    inexact: str | None = None
    runtime: str = "ONNX Runtime"
    errors: ErrorReport | None = None
    integer_share: float = 0.0
    size: float | None = None
    metric: str = "mAP50-95"
    latency: Latency | None = None
    corrected: bool = False
    trained: bool = False

    @property
    def computed_otherwise(self) -> bool:
        """Whether more of the runtime's integers differ from the reference's than float operations explain."""
        return self.codes is not None and self.codes.share > BOUND
