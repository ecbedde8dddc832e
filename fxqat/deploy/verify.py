"""Is what runs what was trained? The same images through three executions of one model, differing codes counted tensor
by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, fx

from fxqat.deploy.integer import IntegerExecution
from fxqat.errors import Problem
from fxqat.graph.site import site_of
from fxqat.quant.torch_ao import quantize_per_tensor
from fxqat.yolo.detector import Detector, cut

CODES = ".codes"
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
    """One quantized tensor: fake-quant against reference, reference against ONNX Runtime, fake-quant against ONNX
    Runtime."""

    site: str
    trained_reference: Difference = Difference()
    reference_runtime: Difference = Difference()
    trained_runtime: Difference = Difference()


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All quantized tensors in the order of the computation.

    ``output_error`` is the largest absolute difference of the final output between reference and ONNX Runtime: (boxes
    in pixels, scores).
    """

    rows: tuple[Row, ...]
    images: int
    output_error: tuple[float, float]

    def total(self, pair: str) -> Difference:
        """The sum over all tensors of one of ``PAIRS``."""
        return sum((getattr(row, pair) for row in self.rows), Difference())

    def worst(self, pair: str) -> Row:
        """The tensor with the largest share of differing codes."""
        return max(self.rows, key=lambda row: getattr(row, pair).share)

    def first(self, pair: str) -> Row | None:
        """The first tensor that differs at all; what follows may differ because it does."""
        return next((row for row in self.rows if getattr(row, pair).differing), None)

    def summary(self) -> dict[str, Any]:
        """Ready for JSON."""
        totals = {
            pair: {**asdict(self.total(pair)), "share": self.total(pair).share, "worst": self.worst(pair).site}
            for pair in PAIRS
        }
        return {
            "images": self.images,
            "totals": totals,
            "output_error": self.output_error,
            "tensors": [asdict(row) for row in self.rows],
        }


def verify_images(
    trained: Detector, reference: Detector, path: Path, batches: Iterable[Tensor], progress: Callable[[int], None]
) -> Verification:
    """Compare the fake-quant graph ``trained``, its INT8 ``reference`` executed in integers and the file exported from
    it, with ORT's
    optimizations on.

    Raises:
        Problem: the file is missing, is not this model's, or there is no image.
    """
    view = cut(reference.gm, 0).eval()
    sites = [site_of(node).removesuffix(CODES) for node in view.graph.nodes if node.target is quantize_per_tensor]
    session = _session(path, sites)
    rows, seen, error = {site: Row(site=site) for site in sites}, 0, (0.0, 0.0)
    for batch in batches:
        _check_shape(session, batch, path)
        wanted, output = _reference_codes(view, batch)
        runtime = session.run(None, {"images": batch.numpy()})
        error = _larger(error, output, runtime[0])
        codes = dict(zip(sites, runtime[1:], strict=True))
        for site, mine in _trained_codes(trained, reference, sites, batch):
            rows[site] = _compared(rows[site], mine, wanted[site], codes[site])
        seen += len(batch)
        progress(seen)
    if not seen:
        raise Problem("verify", "saw no image", expected="at least one readable image")
    return Verification(rows=tuple(rows.values()), images=seen, output_error=error)


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


@torch.no_grad()
def _reference_codes(view: fx.GraphModule, batch: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    execution = IntegerExecution(view)
    output = execution.run(batch)
    return {site.removesuffix(CODES): codes.numpy() for site, codes in execution.codes.items()}, output.numpy()


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


def _compared(row: Row, trained: np.ndarray, reference: np.ndarray, runtime: np.ndarray) -> Row:
    codes = [array.astype(np.int32) for array in (trained, reference, runtime)]
    return Row(
        site=row.site,
        trained_reference=row.trained_reference + _difference(codes[0], codes[1]),
        reference_runtime=row.reference_runtime + _difference(codes[1], codes[2]),
        trained_runtime=row.trained_runtime + _difference(codes[0], codes[2]),
    )


def _difference(a: np.ndarray, b: np.ndarray) -> Difference:
    gap = np.abs(a - b)
    return Difference(codes=gap.size, differing=int(np.count_nonzero(gap)), largest=int(gap.max(initial=0)))


def _larger(error: tuple[float, float], a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    gap = np.abs(a - b)
    return max(error[0], float(gap[:, :4].max())), max(error[1], float(gap[:, 4:].max()))


def _check_shape(session: ort.InferenceSession, batch: Tensor, path: Path) -> None:
    wanted = session.get_inputs()[0].shape
    if any(isinstance(size, int) and size != given for size, given in zip(wanted, batch.shape, strict=True)):
        sizes = " x ".join(map(str, wanted))
        raise Problem(
            path, f"does not take images {' x '.join(map(str, batch.shape))}", expected=sizes, remedy="give --imgsz"
        )


def _session(path: Path, sites: list[str]) -> ort.InferenceSession:
    """A session of the file with every value of codes as a further output, in the order of ``sites``."""
    if not path.is_file():
        raise Problem(path, "no such file", expected="an .onnx file", remedy="run fxqat export first")
    try:
        proto = onnx.load(path)
    except Exception as error:
        raise Problem(path, "is not an ONNX file", expected="a file written by fxqat export") from error
    made = {name for node in proto.graph.node for name in node.output}
    for site in sites:
        name = f"{site}{CODES}"
        if name not in made:
            raise Problem(
                path, f"has no tensor {name}", expected="a file exported from this model", remedy="export it again"
            )
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
