"""Is what runs what was trained? The same images through every execution of one model, differing codes counted tensor
by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from fxqat.errors import Problem
from fxqat.graph.site import site_of
from fxqat.models.detector import Detector, cut
from fxqat.models.family import FinalOutput
from fxqat.quant.arithmetic import ARITHMETICS, Arithmetic
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.runtime.integer_interpreter import IntegerExecution
from fxqat.runtime.integer_model import arithmetic_of
from fxqat.runtime.reference.redundant_qdq import as_exported
from fxqat.runtime.reference.tensor_names import CODES
from fxqat.runtime.runtime import Runtime
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.runtime.sessions import Session, open_file
from fxqat.targets import target_of

_PLAIN = "ort-x86"  # of targets whose arithmetic is not known, which the reference then only resembles
PAIRS = ("trained_reference", "reference_runtime", "trained_runtime")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two executions of one tensor: how many codes were compared, how many differ, and by how many LSB at most."""

    codes: int = 0
    differing: int = 0
    largest: int = 0

    @property
    def share(self) -> float:
        """Differing codes as a part of all, 0..1."""
        return self.differing / self.codes if self.codes else 0.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            codes=self.codes + other.codes,
            differing=self.differing + other.differing,
            largest=max(self.largest, other.largest),
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantized tensor: fake-quant against reference, reference against the runtime, fake-quant against the
    runtime; ``others`` is the reference against each further runtime by its name.

    Against a runtime the reference computes each tensor from that runtime's own integers: the difference is of the
    operations between two quantized tensors, and not of those before.
    """

    site: str
    trained_reference: Difference = Difference()
    reference_runtime: Difference = Difference()
    trained_runtime: Difference = Difference()
    others: Mapping[str, Difference] = field(default_factory=dict)

    def pair(self, name: str) -> Difference:
        """One of ``PAIRS``, or a further runtime's name."""
        found: Difference = getattr(self, name) if name in PAIRS else self.others[name]
        return found


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All quantized tensors in the order of the computation.

    Attributes:
        rows: one a tensor.
        images: how many were seen.
        output_error: the largest absolute difference of the final outputs between reference and runtime, by the unit
            of what differs: ``px``, ``in scores``.
        runtimes: names of the runtimes that ran; the first is the one that rows call ``runtime``.
        missing: names of the runtimes that were asked for and are not installed.
    """

    rows: tuple[Row, ...]
    images: int
    output_error: Mapping[str, float]
    runtimes: tuple[str, ...] = ("ort",)
    missing: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[str, ...]:
        """The names of all comparisons: ``PAIRS``, then the further runtimes."""
        return (*PAIRS, *self.runtimes[1:])

    def total(self, pair: str) -> Difference:
        """The sum over all tensors of one of ``pairs``."""
        return sum((row.pair(pair) for row in self.rows), Difference())

    def worst(self, pair: str) -> Row:
        """The tensor with the largest share of differing codes."""
        return max(self.rows, key=lambda row: row.pair(pair).share)

    def first(self, pair: str) -> Row | None:
        """The first tensor that differs at all; against fake quantization what follows may differ because it does."""
        return next((row for row in self.rows if row.pair(pair).differing), None)

    def failure(self, bound: float) -> str | None:
        """One line that says how the runtime differs from the reference in a larger share of all codes than ``bound``,
        and where first; None where it does not."""
        total, first = self.total("reference_runtime"), self.first("reference_runtime")
        if total.share <= bound or first is None:
            return None
        at, title = first.reference_runtime, RUNTIMES[self.runtimes[0]].title
        return (
            f"{total.differing} of {total.codes} codes differ between the reference and {title}: {total.share:.2e}, "
            f"above the bound {bound:.2e}; first at {first.site}: {at.differing} of {at.codes} codes, by at most "
            f"{at.largest} LSB"
        )

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        totals = {
            pair: {**asdict(self.total(pair)), "share": self.total(pair).share, "worst": self.worst(pair).site}
            for pair in self.pairs
        }
        return {
            "images": self.images,
            "runtimes": self.runtimes,
            "missing": self.missing,
            "totals": totals,
            "output_error": self.output_error,
            "tensors": [asdict(row) for row in self.rows],
        }


def verify_images(
    trained: Detector,
    reference: Detector,
    path: Path,
    batches: Iterable[Tensor],
    progress: Callable[[int], None],
    *,
    runtimes: Sequence[Runtime] = (RUNTIMES["ort"],),
) -> Verification:
    """Compare the fake-quant graph ``trained``, its INT8 ``reference`` executed in integers and the file exported from
    it in each of ``runtimes``. With the fake-quant graph the reference is compared from the images on, with a runtime
    tensor by tensor, each computed from the integers that this runtime has for the tensors before.

    Raises:
        Problem: the file is missing, is not this model's, or there is no image.
    """
    view = as_exported(cut(reference.gm, 0).eval(), target_of(reference.recipe.target))
    sites = [site_of(node).removesuffix(CODES) for node in view.graph.nodes if node.target is quantize_per_tensor]
    opened = [open_file(path, sites, runtime) for runtime in runtimes]
    names = tuple(runtime.name for runtime in runtimes)
    own = arithmetic_of(reference) or _PLAIN
    arithmetics = [runtime.arithmetic or own for runtime in runtimes]
    rows, seen, error = {site: Row(site=site) for site in sites}, 0, dict[str, float]()
    for batch in batches:
        _check_shape(opened[0], batch, path)
        found = [one(batch.numpy()) for one in opened]
        wanted = [
            _reference_codes(view, ARITHMETICS[name], batch, codes)
            for name, (_, codes) in zip(arithmetics, found, strict=True)
        ]
        free = _undisturbed(view, ARITHMETICS[arithmetics[0]], batch, wanted[0].codes, found[0][1])
        _check_outputs(wanted[0].outputs, found[0][0], path)
        for final, mine, its in zip(trained.final, wanted[0].outputs, found[0][0], strict=True):
            _note_errors(error, final, mine, its)
        for site, mine in _trained_codes(trained, reference, sites, batch):
            pairs = [(one.codes[site], its[site]) for one, (_, its) in zip(wanted, found, strict=True)]
            _check_codes(site, pairs, path)
            rows[site] = _compared(rows[site], mine, free[site], dict(zip(names, pairs, strict=True)))
        seen += len(batch)
        progress(seen)
    if not seen:
        raise Problem("verify", "saw no image", expected="at least one readable image")
    return Verification(rows=tuple(rows.values()), images=seen, output_error=error, runtimes=names)


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what the chosen nodes gave."""

    def __init__(self, gm: fx.GraphModule, wanted: Callable[[fx.Node], bool]) -> None:
        super().__init__(gm)
        self.wanted, self.kept = wanted, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.wanted(n):
            self.kept[site_of(n)] = value
        return value


@dataclass(frozen=True, kw_only=True)
class _Execution:
    """The integers of every quantized tensor by site, and the final outputs."""

    codes: Mapping[str, np.ndarray]
    outputs: Sequence[np.ndarray]


@torch.no_grad()
def _reference_codes(
    view: fx.GraphModule, arithmetic: Arithmetic, batch: Tensor, given: Mapping[str, np.ndarray]
) -> _Execution:
    """The reference, each tensor computed from the integers ``given`` of the tensors before it."""
    known = {f"{site}{CODES}": torch.from_numpy(codes) for site, codes in given.items()}
    execution = IntegerExecution(view, arithmetic, given=known)
    output = execution.run(batch)
    return _Execution(
        codes={site.removesuffix(CODES): codes.numpy() for site, codes in execution.codes.items()},
        outputs=[one.numpy() for one in (output if isinstance(output, tuple) else (output,))],
    )


def _undisturbed(
    view: fx.GraphModule,
    arithmetic: Arithmetic,
    batch: Tensor,
    wanted: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
) -> Mapping[str, np.ndarray]:
    """The reference's integers from the images alone: ``wanted``, unless a tensor differs from the one ``given``."""
    if all(np.array_equal(codes, given[site]) for site, codes in wanted.items()):
        return wanted
    return _reference_codes(view, arithmetic, batch, {}).codes


@torch.no_grad()
def _trained_codes(
    trained: Detector, reference: Detector, sites: list[str], batch: Tensor
) -> Iterator[tuple[str, np.ndarray]]:
    """The fake-quantized values as codes: with the reference's own scale, ``code = round(v / scale) + zero_point``."""
    numbers = {
        site_of(node).removesuffix(CODES): node.args[1:5]
        for node in reference.gm.graph.nodes
        if node.target is quantize_per_tensor
    }
    names = {f"{site}.quantized" for site in sites} | set(sites)
    recorder = _Recorder(cut(trained.gm, 0), lambda node: site_of(node) in names)
    recorder.run(batch)
    for site in sites:
        value = recorder.kept.get(f"{site}.quantized", recorder.kept.get(site))
        scale, zero_point, low, high = numbers[site]
        if value is None:
            raise Problem(
                site, "is not a tensor of the fake-quant graph", expected="a reference converted from the same model"
            )
        yield site, torch.clamp(torch.round(value / scale) + zero_point, low, high).numpy()


def _compared(
    row: Row, trained: np.ndarray, reference: np.ndarray, runtimes: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> Row:
    """``row`` with one more image: by each runtime's name the reference computed from its integers, and its own."""
    (_, (wanted, first)), *rest = runtimes.items()
    others = {name: row.others.get(name, Difference()) + _difference(*codes) for name, codes in rest}
    return Row(
        site=row.site,
        trained_reference=row.trained_reference + _difference(trained, reference),
        reference_runtime=row.reference_runtime + _difference(wanted, first),
        trained_runtime=row.trained_runtime + _difference(trained, first),
        others=others,
    )


def _difference(a: np.ndarray, b: np.ndarray) -> Difference:
    gap = np.abs(a.astype(np.int32) - b.astype(np.int32))
    return Difference(codes=gap.size, differing=int(np.count_nonzero(gap)), largest=int(gap.max(initial=0)))


def _note_errors(error: dict[str, float], output: FinalOutput, a: np.ndarray, b: np.ndarray) -> None:
    """Raise ``error`` to the largest differences between ``a`` and ``b`` in the columns of ``output``."""
    gap = np.moveaxis(np.abs(a - b), output.axis, 0)
    for one in output.columns:
        error[one.unit] = max(error.get(one.unit, 0.0), float(gap[output.slice(one.key)].max()))


def _check_codes(site: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Refuse a file in which a tensor has another shape than in the reference."""
    for mine, its in pairs:
        if mine.shape != its.shape:
            given, wanted = (" x ".join(map(str, one.shape)) for one in (its, mine))
            raise Problem(path, f"{site}{CODES} is {given}", expected=wanted, remedy="export it again")


def _check_outputs(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray], path: Path) -> None:
    """Refuse a file that gives other outputs than the reference."""
    mine, its = ([one.shape for one in outputs] for outputs in (wanted, found))
    if mine != its:
        shapes = (", ".join(" x ".join(map(str, shape)) for shape in one) for one in (its, mine))
        raise Problem(path, f"gives outputs of {next(shapes)}", expected=next(shapes), remedy="export it again")


def _check_shape(opened: Session, batch: Tensor, path: Path) -> None:
    size, *rest = opened.shape
    wanted = [min(size, len(batch)), *rest]  # fewer are filled up
    if any(size and size != given for size, given in zip(wanted, batch.shape, strict=True)):
        sizes = " x ".join(map(str, wanted))
        raise Problem(
            path, f"does not take images {' x '.join(map(str, batch.shape))}", expected=sizes, remedy="give --imgsz"
        )
