"""How fast exported models run on this machine: each in a process of its own, taking turns, compared round by round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fxqat.errors import Problem
from fxqat.models.image_size import ImageSize, SizeLike

WORKER = Path(__file__).with_name("latency_worker.py")
LITERT_WORKER = Path(__file__).with_name("litert_worker.py")
WORKERS = {".tflite": LITERT_WORKER}  # of files that another runtime than ONNX Runtime opens
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One model's timings.

    Times are milliseconds a run (``median``, 10th and 90th percentile over all timed runs). ``speed`` is how many times
    as fast as the first model it is: the median over rounds of the ratio of the two medians in a round, with a 95 %
    bootstrap interval over rounds. ``rss`` is its process's peak resident memory and ``size`` its file, in MB of 10^6
    bytes. ``shape`` is the input's.
    """

    path: Path
    median: float
    p10: float
    p90: float
    speed: float
    speed_low: float
    speed_high: float
    rss: float
    size: float
    runs: int
    shape: tuple[int, ...]

    def summary(self) -> dict[str, Any]:
        """Every number, ready for JSON."""
        return {**asdict(self), "path": str(self.path)}


def measure(
    paths: Sequence[str | Path],
    *,
    threads: int = 2,
    rounds: int = 20,
    runs: int = 5,
    warmup: int = 5,
    imgsz: SizeLike | None = None,
    worker: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Latency]:
    """Time exported models against each other on random images, .onnx in ONNX Runtime, .tflite in LiteRT.

    Sessions in one process slow each other down by spinning threads, and a machine's speed drifts. So each model has a
    process of its own with default session options, only one runs at a time, and models are compared within rounds:
    in each, every model makes one run that does not count and then ``runs`` that do, every second round in reverse.

    Args:
        paths: .onnx or .tflite files; the first is what the others are compared with.
        threads: of each session.
        rounds: turns each model has.
        runs: timed runs a turn.
        warmup: runs before the first round.
        imgsz: image size for models that leave it free (640 by default); an error for one that fixes another.
        worker: the script that runs every model; by default the one for each file's kind.
        progress: called with rounds done and rounds in all.

    Raises:
        Problem: a file is missing or cannot be run, or a worker process died.
    """
    files = [_existing(Path(path)) for path in paths]
    if min(threads, rounds, runs) < 1 or warmup < 0:
        given = f"threads {threads}, rounds {rounds}, runs {runs}, warmup {warmup}"
        raise Problem(given, "cannot be measured", expected="1 or more of each, and no negative warmup")
    size = "0" if imgsz is None else str(ImageSize.of(imgsz))
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(file, threads, size, worker or WORKERS.get(file.suffix, WORKER)))
            for file in files
        ]
        for one in workers:
            one.run(warmup)
        times = _take_turns(workers, rounds, runs, progress or (lambda done, total: None))
    return [_latency(worker, times[:, index], times[:, 0]) for index, worker in enumerate(workers)]


class Worker:
    """The parent's end of one process, see timing_worker.py."""

    def __init__(self, file: Path, process: subprocess.Popen[str], errors: IO[bytes]) -> None:
        self.file, self.process, self.errors = file, process, errors
        self.rss = 0
        self.shape = tuple(self._answer()["shape"])

    def run(self, runs: int) -> list[float]:
        """Seconds of each of ``runs`` runs."""
        assert self.process.stdin is not None
        request = json.dumps({"runs": runs}) + "\n"
        with suppress(BrokenPipeError):  # it died: reading its answer says so
            os.write(self.process.stdin.fileno(), request.encode())  # unbuffered: nothing is left to flush on close
        answer = self._answer()
        self.rss = answer["rss"]
        return list(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Problem(self.file, f"cannot be run: {answer['error']}")
        return answer

    def _death(self) -> Problem:
        code = self.process.wait()
        self.errors.seek(0)
        last = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return Problem(self.file, f"its process died with code {code}", remedy=last[0] if last else "is memory short?")


@contextmanager
def _worker(file: Path, threads: int, size: str, script: Path) -> Iterator[Worker]:
    # -P: the script's folder stays off sys.path, where its neighbours could hide installed packages
    command = [sys.executable, "-P", str(script), str(file), str(threads), size]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as errors,  # a pipe could fill up and stop the worker
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            yield Worker(file, process, errors)
        finally:
            process.kill()


def _take_turns(workers: list[Worker], rounds: int, runs: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """Seconds of every timed run, shape (rounds, models, runs)."""
    times = np.empty((rounds, len(workers), runs))
    for turn in range(rounds):
        order = range(len(workers)) if turn % 2 == 0 else reversed(range(len(workers)))
        for index in order:
            times[turn, index] = workers[index].run(1 + runs)[1:]
        progress(turn + 1, rounds)
    return times


def _latency(worker: Worker, times: np.ndarray, base: np.ndarray) -> Latency:
    p10, median, p90 = 1e3 * np.quantile(times, [0.1, 0.5, 0.9])
    speed, low, high = ratio(np.median(base, axis=1) / np.median(times, axis=1))
    return Latency(
        path=worker.file,
        median=float(median),
        p10=float(p10),
        p90=float(p90),
        speed=speed,
        speed_low=low,
        speed_high=high,
        rss=worker.rss / 1e6,
        size=worker.file.stat().st_size / 1e6,
        runs=times.size,
        shape=worker.shape,
    )


def ratio(rounds: np.ndarray, *, level: float = 0.95) -> tuple[float, float, float]:
    """The median of the rounds' ratios, shape (rounds,), and its percentile bootstrap interval."""
    drawn = np.random.default_rng(0).choice(rounds, (RESAMPLES, len(rounds)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(np.median(rounds)), float(low), float(high)


def table(latencies: Sequence[Latency]) -> str:
    """A plain table, one line a model."""
    rows = [("model", "median ms", "p10", "p90", "speed", "95 % interval", "peak MB", "file MB")]
    for item in latencies:
        times = (f"{item.median:.1f}", f"{item.p10:.1f}", f"{item.p90:.1f}", f"{item.speed:.2f}x")
        interval = f"{item.speed_low:.2f}..{item.speed_high:.2f}"
        rows.append((item.path.name, *times, interval, f"{item.rss:.0f}", f"{item.size:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, *numbers = row
    return "  ".join(
        [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))]
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise Problem(path, "no such file", expected="an exported model", remedy="make it with fxqat export")
    return path
