"""What quantization does to every tensor: the error each quantizer makes, what it alone does to the output, and what
has gathered there with all of them on."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor, fx

from fxqat.errors import Problem
from fxqat.graph.site import covers, module_of, nearest, operation
from fxqat.json_text import finite
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.passes.quant_graph import quant_info, rounded_site
from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.sensitivity.error_statistics import Tally, weight_tally
from fxqat.sensitivity.gradient_probe import Gap, ProbeResult, probe
from fxqat.workflow.stage_checks import expect_calibrated


@dataclass(frozen=True, kw_only=True)
class SiteError:
    """One tensor: a quantized one, or the output of a layer that the policy leaves in float.

    SQNR is ``10 log10(sum x^2 / sum (x - q)^2)`` in dB (infinite without error), cosine ``x.q / (|x| |q|)``, both over
    all images. What does not apply is None.

    Attributes:
        site: where it is, as in ``fxqat text``.
        op: what computes it.
        decided: the site whose line of the policy decided it.
        why: that line's reason.
        spec: how the tensor is quantized, ``u8<0:255>``; None in float.
        scale: float, one step.
        zero_point: the code of 0.
        low: the least value that has a code.
        high: the largest.
        seen_low: the least value in the float network.
        seen_high: the largest.
        sqnr: its quantizer alone, at the tensor: the float network's values against the same values rounded, dB.
        cosine: of the two.
        clipped: share of values beyond ``low`` and ``high`` by more than half a step, 0..1.
        used: share of the range that the values reach into, 0..1.
        accumulated_sqnr: all quantizers on: this tensor in the quantized network against the float one, dB.
        accumulated_cosine: of the two.
        weight_spec: how the layer's weight is quantized; None where it is not, or there is none.
        weight_sqnr: the folded weight against its codes, dB.
        weight_cosine: of the two.
        weight_used: share of the codes between the least and the largest used, mean over channels, 0..1.
        layer_sqnr: the layer's output with its weight and bias alone quantized, dB.
        alone: what the tensor's quantizer alone does to the detector's output, nats (see ``divergence``); estimated.
        weight_alone: the same of the weight's quantizer.
        share: ``alone + weight_alone`` as a part of the sum over all sites, 0..1.
    """

    site: str
    op: str
    decided: str
    why: str = ""
    spec: str | None = None
    scale: float | None = None
    zero_point: int | None = None
    low: float | None = None
    high: float | None = None
    seen_low: float | None = None
    seen_high: float | None = None
    sqnr: float | None = None
    cosine: float | None = None
    clipped: float | None = None
    used: float | None = None
    accumulated_sqnr: float
    accumulated_cosine: float
    weight_spec: str | None = None
    weight_sqnr: float | None = None
    weight_cosine: float | None = None
    weight_used: float | None = None
    layer_sqnr: float | None = None
    alone: float = 0.0
    weight_alone: float = 0.0
    share: float = 0.0

    @property
    def quantized(self) -> bool:
        """Whether the tensor, or the weight that makes it, is integer."""
        return self.spec is not None or self.weight_spec is not None


@dataclass(frozen=True, kw_only=True)
class ErrorReport:
    """Every tensor in the order of the computation.

    Attributes:
        model: file name of the float model.
        policy: name of the policy.
        rows: see SiteError.
        output: how far the quantized network's output is from the float network's, measured.
        predicted: the same distance, as the sum of the quantizers' linear effects with their correlations.
        images: how many were shown.
        imgsz: of the images.
        probes: random directions an image, for ``alone``.
    """

    model: str
    policy: str
    rows: tuple[SiteError, ...]
    output: Gap
    predicted: float
    images: int
    imgsz: ImageSize
    probes: int

    def __getitem__(self, site: str) -> SiteError:
        for row in self.rows:
            if row.site == site:
                return row
        raise Problem(
            site, "is not in the report", remedy=nearest(site, [row.site for row in self.rows]) or "see `fxqat analyze`"
        )

    def sorted(self, by: str = "share", glob: str = "**") -> list[SiteError]:
        """Rows that have a value for ``by`` and whose site ``glob`` covers, worst first: the lowest SQNR, cosine or
        used range, the largest of anything else.

        Raises:
            Problem: there is no such column.
        """
        check_column(by)
        rows = [row for row in self.rows if getattr(row, by) is not None and covers(glob, row.site)]
        low_is_bad = by.endswith(("sqnr", "cosine", "used"))
        return sorted(rows, key=lambda row: getattr(row, by) if low_is_bad else -getattr(row, by))

    def summary(self) -> dict[str, Any]:
        """Ready for JSON; an infinite SQNR is null."""
        whole = {key: getattr(self, key) for key in ("model", "policy", "images", "probes", "predicted")}
        rows = [asdict(row) for row in self.rows]
        summary: dict[str, Any] = finite(
            {**whole, "imgsz": self.imgsz.plain, "output": asdict(self.output), "sites": rows}
        )
        return summary

    def csv(self) -> str:
        """One line a row, a header on top; an infinite SQNR is ``inf``, what does not apply is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(SiteError)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()


COLUMNS = (
    *("share", "alone", "weight_alone", "sqnr", "cosine", "clipped", "used"),
    *("accumulated_sqnr", "accumulated_cosine", "weight_sqnr", "weight_cosine", "weight_used", "layer_sqnr"),
)


def analyze(
    model: Detector,
    batches: Iterable[Tensor],
    *,
    probes: int = 2,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> ErrorReport:
    """Measure every quantizer of a calibrated or trained detector on images.

    The float network is the same graph with every quantizer off, so that after training the error is that of
    quantization alone.

    Args:
        model: stage ``qat``, calibrated.
        batches: images (B, 3, H, W) in 0..1; taken one image at a time, which bounds the memory.
        probes: random directions an image; the relative deviation of ``alone`` is about sqrt(2 / (images * probes)).
        seed: of the directions.
        progress: called with images done.

    Raises:
        Problem: never calibrated, or no image.
    """
    expect_calibrated(model, "analyze")
    found = probe(model, batches, probes=probes, seed=seed, progress=progress)
    members = found.alone()
    whole = sum(members.values()) or 1.0
    rows = [_row(node, found, members, whole) for node in found.nodes]
    return ErrorReport(
        model=model.source.name,
        policy=model.recipe.policy_name,
        rows=_merged(rows),
        output=found.output,
        predicted=found.together(found.names),
        images=found.images,
        imgsz=found.imgsz,
        probes=probes,
    )


def check_column(by: str) -> None:
    """Refuse what rows cannot be sorted by.

    Raises:
        Problem: with the nearest column.
    """
    if by not in COLUMNS:
        raise Problem(by, "is no column", expected=f"one of: {', '.join(COLUMNS)}", remedy=nearest(by, COLUMNS))


def check_probes(probes: int) -> None:
    """Refuse less than one.

    Raises:
        Problem: naming the option.
    """
    if probes < 1:
        raise Problem("--probes", str(probes), expected="1 or more")


def _row(node: fx.Node, found: ProbeResult, alone: dict[str, float], whole: float) -> SiteError:
    module = module_of(node)
    decision = quant_info(node).decision
    gathered = found.accumulated[node.name]
    common: dict[str, Any] = {
        "site": rounded_site(node),
        "op": operation(node),
        "decided": decision.site.path if decision else rounded_site(node),
        "why": decision.rule.why if decision else "",
        "accumulated_sqnr": gathered.sqnr,
        "accumulated_cosine": gathered.cosine,
    }
    effect = alone.get(node.name, 0.0)
    if isinstance(module, FakeQuantize):
        origin = node.all_input_nodes[0]
        common["op"] = "input" if origin.op == "placeholder" else operation(origin)
        return SiteError(**common, **_activation(module, found.tallies[node.name]), alone=effect, share=effect / whole)
    if module.weight_fake_quant is None:
        return SiteError(**common)
    weight = weight_tally(module, found.input_scale(node))
    return SiteError(
        **common,
        weight_spec=str(module.weight_fake_quant.spec),
        weight_sqnr=weight.sqnr,
        weight_cosine=weight.cosine,
        weight_used=weight.used,
        layer_sqnr=found.tallies[node.name].sqnr,
        weight_alone=effect,
        share=effect / whole,
    )


def _activation(fake: FakeQuantize, tally: Tally) -> dict[str, Any]:
    numbers = fake.qparams()
    low, high = numbers.span
    return {
        "spec": str(fake.spec),
        "scale": float(numbers.scale),
        "zero_point": int(numbers.zero_point),
        "low": low,
        "high": high,
        "seen_low": tally.low,
        "seen_high": tally.high,
        "sqnr": tally.sqnr,
        "cosine": tally.cosine,
        "clipped": tally.clipped,
        "used": tally.used,
    }


_OF_WEIGHT = ("weight_spec", "weight_sqnr", "weight_cosine", "weight_used", "layer_sqnr", "weight_alone")


def _merged(rows: Sequence[SiteError]) -> tuple[SiteError, ...]:
    """A layer and the quantizer of its output are one row: same site."""
    merged: dict[str, SiteError] = {}
    for row in rows:
        before = merged.get(row.site)
        if before is None:
            merged[row.site] = row
        else:
            kept = {key: getattr(before, key) for key in _OF_WEIGHT}
            merged[row.site] = SiteError(**{**asdict(row), **kept, "share": before.share + row.share})
    return tuple(merged.values())
