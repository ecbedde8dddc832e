"""What a training step costs: ``python -m bench.step --weights yolov8n.pt --data D [--json F]``.

Each way to train is a process of its own with the same batch of images and labels; they take turns, one step each, so
that the machine's moods meet all alike. A step is forward, Ultralytics' task loss, backward and AdamW. Memory is the
process's peak beyond what it held before the first step. What is not installed is reported as missing.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import torch
from torch import nn, optim

from bench.command import parser, run
from fxqat.checkpoint.fxqat_format import versions
from fxqat.errors import Problem
from fxqat.quant.fake_quantize import use_kernels

Batch = dict[str, Any]
Model = Callable[[Batch], Any]
COMPILED = ", compiled"  # as fxqat train runs where a C++ compiler is at hand


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One way's steps: milliseconds each, and megabytes."""

    name: str
    steps: tuple[float, ...]
    megabytes: float

    @property
    def median(self) -> float:
        """Of the steps, in milliseconds."""
        return statistics.median(self.steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit code 2 for bad input."""
    options = _parser().parse_args(arguments)
    return _work(options) if options.worker else run(options, _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    found, missing = _measure(options)
    print(table(found, missing))
    rows = [{"name": one.name, "steps": one.steps, "megabytes": one.megabytes} for one in found]
    return {"versions": versions(), "rows": rows, "missing": missing}


def table(found: Sequence[Cost], missing: Mapping[str, str]) -> str:
    """Markdown, the first row being what the others are compared with; intervals are the quartiles of the ratio of
    steps of the same turn."""
    base = found[0]
    lines = ["| training | step, ms | against FP32 | quartiles | memory, MB | against FP32 |", "| --- |" + " --- |" * 5]
    for one in found:
        ratios = sorted(mine / theirs for mine, theirs in zip(one.steps, base.steps, strict=True))
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        cells = (
            one.name,
            f"{one.median:.0f}",
            f"{statistics.median(ratios):.2f}x",
            f"{low:.2f}..{high:.2f}",
            f"{one.megabytes:.0f}",
            f"{one.megabytes / base.megabytes:.2f}x",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {name} | missing: {why} |  |  |  |  |" for name, why in missing.items()]
    return "\n".join(lines)


def _measure(options: argparse.Namespace) -> tuple[list[Cost], dict[str, str]]:
    names = [name for name in WAYS if not options.only or name in options.only]
    workers: dict[str, _Worker] = {}
    missing: dict[str, str] = {}
    for name in names:
        worker = _Worker(name, options)
        answer = worker.ask()  # one at a time: calibration wants the machine too
        if answer.startswith("ready"):
            workers[name] = worker
        else:
            missing[name] = answer.strip()
    steps: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(options.turns + 1):
        for name, worker in workers.items():
            took = float(worker.ask("step"))
            if turn:  # the first is a warm-up
                steps[name].append(took)
    found = [Cost(name=n, steps=tuple(steps[n]), megabytes=float(w.ask("memory"))) for n, w in workers.items()]
    if not found or found[0].name != names[0]:
        raise Problem("bench.step", f"{names[0]} did not run: {missing.get(names[0], '')}")
    return found, missing


class _Worker:
    """A process that waits for ``step`` and ``memory``."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        given = ["--weights", options.weights, "--data", options.data, "--imgsz", options.imgsz]
        given += ["--channels-last"] if options.channels_last else []
        given += ["--batch", options.batch, "--threads", options.threads, "--policy", options.policy]
        command = [sys.executable, "-m", "bench.step", *map(str, given), "--worker", name]
        # passive: threads that spin while another process has its turn would slow that one down
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, word: str = "") -> str:
        source, sink = self.process.stdout, self.process.stdin
        assert source is not None
        assert sink is not None
        if word:
            sink.write(f"{word}\n")
            sink.flush()
        answer = source.readline()
        return answer or f"its process ended with {self.process.wait()}"


def _work(options: argparse.Namespace) -> int:
    """A worker: build, then answer."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    torch.set_num_threads(options.threads)
    try:
        batch = _batch(options)
        model = WAYS[options.worker](options, batch)
    except (ImportError, Problem) as error:
        _say(out, str(error).splitlines()[0])
        return 0
    if options.channels_last:
        model.to(memory_format=torch.channels_last)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = optim.AdamW(weights, lr=1e-6)
    before = _resident()
    _say(out, "ready")
    use_kernels(model, options.worker.endswith(COMPILED))
    _answer(out, model, optimizer, batch, before)
    return 0


def _answer(out: TextIO, model: nn.Module, optimizer: optim.Optimizer, batch: Batch, before: float) -> None:
    for word in sys.stdin:
        _say(out, f"{_step(model, optimizer, batch):.3f}" if word.strip() == "step" else f"{_peak() - before:.1f}")


def _step(model: nn.Module, optimizer: optim.Optimizer, batch: Batch) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    model(batch)[0].sum().backward()
    optimizer.step()
    return (time.perf_counter() - start) * 1e3


def _say(out: TextIO, text: str) -> None:
    print(text, file=out, flush=True)


def _batch(options: argparse.Namespace) -> Batch:
    """One batch as Ultralytics' loader gives it: images letterboxed and in 0..1, labels as they are."""
    from bench.training_set import training_set
    from fxqat.training.config import RECIPE

    found = training_set(options.data, RECIPE, imgsz=options.imgsz, batch=options.batch)
    torch.manual_seed(0)
    batch: Batch = found.collate_fn([found[index] for index in range(options.batch)])
    batch["img"] = batch["img"].float() / 255
    return batch


def _ultralytics(options: argparse.Namespace) -> Any:
    from fxqat.models import offline

    offline.quiet()
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg

    model: Any = YOLO(options.weights).model
    model.args = get_cfg()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".dfl" not in name
    return model.float().train()


def _fp32(options: argparse.Namespace, batch: Batch) -> nn.Module:
    model: nn.Module = _ultralytics(options)
    return model


def _modelopt(options: argparse.Namespace, batch: Batch) -> nn.Module:
    importlib.import_module("modelopt.torch.quantization")  # or Ultralytics would try to install it
    from ultralytics.utils.torch_utils import prepare_qat

    model: nn.Module = prepare_qat(_ultralytics(options), [batch], lambda one: one["img"], 1)
    return model.train()


def _ours(lsq: bool) -> Callable[[argparse.Namespace, Batch], nn.Module]:
    def made(options: argparse.Namespace, batch: Batch) -> nn.Module:
        from fxqat.passes.learn_scales import LearnScales

        trainee = _trainee(options, batch)
        if lsq:
            LearnScales()(trainee.detector.gm)
        trainee.refresh()
        return trainee

    return made


def _torch_ao(options: argparse.Namespace, batch: Batch) -> nn.Module:
    """Our placement with torch.ao's fused fake quantizers, observers off, step by step."""
    from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver

    trainee = _trainee(options, batch)
    from fxqat.passes.quant_graph import QuantGraph
    from fxqat.quant.modules import QATConv2d

    gm = trainee.detector.gm
    for path, ours in QuantGraph(gm).quantizers_by_path().items():
        theirs = FakeQuantize(MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8)
        theirs.disable_observer()
        numbers = ours.qparams()
        theirs.scale, theirs.zero_point = numbers.scale.clone(), numbers.zero_point.clone()
        gm.add_submodule(path, theirs)
    for layer in gm.modules():
        if isinstance(layer, QATConv2d) and layer.weight_fake_quant is not None:
            setattr(layer.weight_fake_quant, "quantize", _torch_weight(layer))  # noqa: B010 - mypy knows a method
    trainee.refresh()
    return trainee


def _torch_weight(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    ours = layer.weight_fake_quant

    def quantize(weight: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_channel_affine(weight, ours.scale, ours.zero_point, 0, -127, 127)

    return quantize


def _trainee(options: argparse.Namespace, batch: Batch) -> Any:
    """A detector calibrated on the batch, in training as ``fxqat train`` does it, with the task loss."""
    import fxqat
    from fxqat.quant.modules import freeze_bn_stats
    from fxqat.quant.torch_ao import disable_observer
    from fxqat.training.losses import LossConfig, build_loss_function
    from fxqat.training.ultralytics_model import Trainee

    prepared, _ = fxqat.prepare(fxqat.load(options.weights), options.policy)
    trainee = Trainee(copy.deepcopy(fxqat.calibrate(prepared, [batch["img"]])))
    trainee.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    trainee.apply(disable_observer)
    trainee.criterion = build_loss_function(LossConfig(), model=trainee)
    trainee.requires_grad_(True).train().apply(freeze_bn_stats)
    return trainee


WAYS: Mapping[str, Callable[[argparse.Namespace, Batch], nn.Module]] = {
    "FP32 (Ultralytics)": _fp32,
    "Ultralytics quantize=8 (nvidia-modelopt)": _modelopt,
    f"fxqat, learned scales{COMPILED}": _ours(lsq=True),
    "fxqat, learned scales": _ours(lsq=True),
    f"fxqat, fixed scales{COMPILED}": _ours(lsq=False),
    "fxqat, fixed scales": _ours(lsq=False),
    "fxqat's placement with torch.ao's modules": _torch_ao,
}


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _parser() -> argparse.ArgumentParser:
    made = parser("step", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--data", required=True, metavar="D", help="data set YAML whose first images are the batch")
    made.add_argument("--policy", default="w8a8", metavar="P")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--turns", type=int, default=12, help="steps of each (default: %(default)s)")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--only", action="append", metavar="NAME", help=f"may be given again: {', '.join(WAYS)}")
    made.add_argument("--channels-last", action="store_true", help="lay images and weights out as NHWC")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


if __name__ == "__main__":
    sys.exit(main())
