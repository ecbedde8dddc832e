"""Every tool that makes a YOLO INT8 file, in one run: ``python -m bench.peers --weights W.pt --calibration D --data V
--work F``.

Each tool makes its file in a process of its own (time and peak memory are its), each file is measured on the same
images (paired bootstrap against the FP32 ONNX) in the runtime it is made for, and timed in ONNX Runtime, OpenVINO and
LiteRT, there with 1 and 2 threads (each model in a process of its own, taking turns, default options). Everything made
and measured is kept in ``--work``: called again, the program goes on where it was cut off. ``--only
make,accuracy,latency`` and ``--peer NAME`` choose parts; a tool whose package is not installed, or that fails, is
reported so. ``pip install .[peers]`` and ``.[litert]`` bring them all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.command import run
from bench.peer_job import Job
from bench.peer_makers import LITERT_BASE, PEERS, Peer
from bench.peers_picture import draw
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, Predictor, evaluate, from_onnx
from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.bootstrap import paired_drift
from fxqat.evaluation.exported_file import from_file
from fxqat.evaluation.latency import LITERT_WORKER, WORKER, Latency, measure
from fxqat.evaluation.timing_worker import peak_rss
from fxqat.files import write_text

OPENVINO_WORKER = Path(__file__).with_name("openvino_worker.py")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One comparison of latencies: its column, the runtime's package and script, and the files that it opens."""

    name: str
    title: str
    package: str
    worker: Path
    suffixes: tuple[str, ...]
    threads: int = 2


TIMINGS = (
    Timing(name="onnxruntime", title="ONNX Runtime", package="onnxruntime", worker=WORKER, suffixes=(".onnx",)),
    Timing(
        name="openvino",
        title="OpenVINO",
        package="openvino",
        worker=OPENVINO_WORKER,
        suffixes=(".onnx", ".xml"),
    ),
    *(
        Timing(
            name=f"litert_{threads}",
            title=f"LiteRT, {threads} thread{'s' if threads > 1 else ''}",
            package="ai_edge_litert",
            worker=LITERT_WORKER,
            suffixes=(".tflite",),
            threads=threads,
        )
        for threads in (1, 2)
    ),
)
BASE = PEERS[0]
Step = Callable[[argparse.Namespace, Sequence[Peer]], None]
ACCURACY = "accuracy.npz"
_SHOWN = 100  # characters of a failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, measure, print; exit code 2 for bad input."""
    options = _parser().parse_args(arguments)
    return run(options, _make_here if options.make_one else _measured)


def _measured(options: argparse.Namespace) -> None:
    peers, work = _chosen(options.peer), Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    for step in _steps(options.only):
        step(options, peers)
    rows = [_row(options, peer) for peer in PEERS]
    text = _markdown(rows)
    write_text(work / "peers.md", text + "\n")
    write_text(work / "peers.json", json.dumps(rows, indent=2) + "\n")
    draw(rows, work / "peers.png")
    print(text)


def _chosen(names: Sequence[str] | None) -> list[Peer]:
    known = {peer.name: peer for peer in PEERS}
    for name in names or ():
        if name not in known:
            raise Problem("--peer", f"unknown tool {name!r}", expected=f"one of: {', '.join(known)}")
    return [known[name] for name in names] if names else list(PEERS)


def _steps(words: str) -> list[Step]:
    for word in words.split(","):
        if word not in STEPS:
            raise Problem("--only", f"unknown step {word!r}", expected=f"of: {', '.join(STEPS)}")
    return [STEPS[word] for word in words.split(",")]


def _folder(options: argparse.Namespace, peer: Peer) -> Path:
    return Path(options.work).resolve() / peer.name


def _job(options: argparse.Namespace, peer: Peer) -> Job:
    base = _read(_folder(options, BASE) / "made.json").get("file", "")
    return Job(
        weights=Path(options.weights).resolve(),
        calibration=Path(options.calibration).resolve(),
        folder=_folder(options, peer),
        float_onnx=Path(base),
        imgsz=options.imgsz,
        images=options.images,
    )


def _make_all(options: argparse.Namespace, peers: Sequence[Peer]) -> None:
    for peer in peers:
        folder = _folder(options, peer)
        if (folder / "made.json").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if importlib.util.find_spec(peer.package) is None:
            write_text(folder / "made.json", json.dumps({"failed": f"{peer.package} is not installed"}))
            continue
        given = ("weights", "calibration", "work", "imgsz", "images")
        words = [word for key in given for word in (f"--{key}", str(getattr(options, key)))]
        command = [sys.executable, "-m", "bench.peers", *words, "--data", "-", "--make-one", "--peer", peer.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not (folder / "made.json").is_file():
            write_text(folder / "made.json", json.dumps({"failed": _end(done)}))
        print(f"{peer.name}: {(folder / 'made.json').read_text()[:300]}", file=sys.stderr, flush=True)


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """How a process that made nothing ended, in a few words."""
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}" + (
            " (out of memory?)" if done.returncode == -signal.SIGKILL else ""
        )
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return textwrap.shorten(last, _SHOWN, placeholder=" ...")


def _make_here(options: argparse.Namespace) -> None:
    """In the process that does nothing else."""
    peer = _chosen(options.peer)[0]
    job = _job(options, peer)
    start = time.perf_counter()
    path = peer.make(job)
    facts = {
        "file": str(path),
        "seconds": time.perf_counter() - start,
        "peak_mb": peak_rss() / 1e6,
        "bytes": sum(one.stat().st_size for one in {path, path.with_suffix(".bin")} if one.is_file()),
    }
    write_text(job.folder / "made.json", json.dumps(facts))


def _measure_accuracy(options: argparse.Namespace, peers: Sequence[Peer]) -> None:
    for peer in peers:
        folder, made = _folder(options, peer), _read(_folder(options, peer) / "made.json")
        if "file" not in made or (folder / ACCURACY).is_file():
            continue
        path = Path(made["file"])
        opened = _from_openvino(path, options) if peer.runtime == "openvino" else from_file(path)
        found = evaluate(opened, options.data, imgsz=options.imgsz, limit=options.images_val, batch=1)
        write(found, folder / ACCURACY)
        print(f"{peer.name}: mAP50-95 {found.map5095:.4f}", file=sys.stderr, flush=True)


def _from_openvino(path: Path, options: argparse.Namespace) -> Predictor:
    import openvino
    import torch

    compiled = openvino.Core().compile_model(str(path), "CPU")
    names = from_onnx(Path(_read(_folder(options, BASE) / "made.json")["file"])).names
    return Predictor(
        name=path.name, predict=lambda x: torch.from_numpy(compiled(x.numpy())[0].copy()), names=names, path=path
    )


def _kept(folder: Path) -> Accuracy | None:
    path = folder / ACCURACY
    return read(path) if path.is_file() else None


def _measure_latency(options: argparse.Namespace, peers: Sequence[Peer]) -> None:
    """All files against each other, so the whole step is measured again whenever it is asked for."""
    found: dict[str, dict[str, Any]] = {}
    bases = [
        peer for peer in PEERS if peer.name in (BASE.name, LITERT_BASE)
    ]  # first, since others are compared with it
    made = {peer.name: _read(_folder(options, peer) / "made.json") for peer in [*bases, *peers]}
    files = {name: str(facts["file"]) for name, facts in made.items() if "file" in facts}
    for timing in TIMINGS:
        names = [name for name, file in files.items() if file.endswith(timing.suffixes)]
        if importlib.util.find_spec(timing.package) is None or not names:
            continue
        names = [name for name in names if _runs(files[name], timing.package, timing.worker)]
        timed = measure(
            [files[name] for name in names], threads=timing.threads, rounds=options.rounds, worker=timing.worker
        )
        for name, one in zip(names, timed, strict=True):
            found.setdefault(name, {})[timing.name] = _timing(one)
    write_text(Path(options.work) / "latency.json", json.dumps(found, indent=2))


def _runs(file: str, runtime: str, worker: Path) -> bool:
    """Whether ``runtime`` takes the file at all: not every tool's is legal for every runtime."""
    try:
        measure([file], rounds=1, runs=1, warmup=0, worker=worker)
    except Problem as problem:
        print(f"{runtime} does not run {file}: {problem}", file=sys.stderr)
        return False
    return True


def _timing(one: Latency) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if key not in {"path", "shape"}}


def _row(options: argparse.Namespace, peer: Peer) -> dict[str, Any]:
    folder = _folder(options, peer)
    row: dict[str, Any] = {"name": peer.name, "title": peer.title, "runtime": peer.runtime}
    row |= _read(folder / "made.json") or {"failed": "not made yet"}
    row.pop("file", None)
    accuracy, base = _kept(folder), _kept(_folder(options, BASE))
    if accuracy and base:
        row["map5095"] = accuracy.map5095
        row["drift"] = None if peer is BASE else asdict(paired_drift(base, accuracy))
    row["latency"] = _read(Path(options.work) / "latency.json").get(peer.name, {})
    row["share"] = row["bytes"] / _read(_folder(options, BASE) / "made.json")["bytes"] if "bytes" in row else None
    return row


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


_HEAD = (
    "tool", "mAP50-95", "against FP32, points [95 %]", "in", *(one.title for one in TIMINGS), "MB", "of FP32",
    "made in", "peak memory",
)  # fmt: skip


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["title"], row["failed"], *[""] * (len(_HEAD) - 2)]
    drift, timed = row.get("drift"), row["latency"]
    return [
        row["title"],
        f"{row['map5095']:.4f}" if "map5095" in row else "",
        f"{drift['points']:+.2f} [{drift['low']:+.2f}, {drift['high']:+.2f}]" if drift else "",
        {"onnxruntime": "ORT", "openvino": "OpenVINO", "litert": "LiteRT"}[row["runtime"]],
        *(_speed(timed.get(one.name)) for one in TIMINGS),
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['share']:.0%}",
        f"{row['seconds']:.0f} s",
        f"{row['peak_mb']:.0f} MB",
    ]


def _speed(timing: Mapping[str, Any] | None) -> str:
    return f"{timing['speed']:.2f}x ({timing['median']:.1f} ms)" if timing else ""


STEPS: Mapping[str, Step] = {"make": _make_all, "accuracy": _measure_accuracy, "latency": _measure_latency}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__.split(":")[0] if __doc__ else None
    )
    parser.add_argument("--weights", required=True, metavar="FILE.pt")
    parser.add_argument("--calibration", required=True, metavar="D.yaml", help="data set YAML to calibrate on")
    parser.add_argument("--data", required=True, metavar="V.yaml", help="labelled data set YAML to evaluate on")
    parser.add_argument("--work", required=True, metavar="DIR", help="keeps everything made and measured")
    parser.add_argument("--only", default=",".join(STEPS), metavar="STEPS", help="of make, accuracy, latency")
    parser.add_argument("--peer", action="append", metavar="NAME", help="this tool alone; may be given again")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--images", type=int, default=128, help="to calibrate on (default: %(default)s)")
    parser.add_argument("--images-val", type=int, help="to evaluate on (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="of latency (default: %(default)s)")
    parser.add_argument("--make-one", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
