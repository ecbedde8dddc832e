"""Commands that are ended at random moments: what they leave, and with what exit code.

    python -m bench.interruptions [--moments 10] [--seed 0] [--commands train,export] [--json FILE]

Each command of the chain runs once to its end, on a small detector and drawn images. Then copies of the process run it
again and are ended at random moments of that time: by kill -9, Ctrl-C, SIGTERM, or by a reader that closes the pipe.
Whatever the moment, files are as before or equal to those of the whole run, bit for bit; the exit code is as a shell
tells of the signal; nothing is left behind, also in TMPDIR, but by kill -9. A training then goes on with ``--resume``,
or begins again where no epoch was finished, and must end with the same tensors. ``start`` is a process of its own,
ended while Python and its libraries are imported.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
import yaml
from safetensors.torch import load_file

from bench.command import parser, run
from bench.damaged_checkpoints import ARCHITECTURE
from bench.ended_process import Ended, Process, run_alone, run_copied
from fxqat.cli import main as fxqat_main
from fxqat.demo import make_dataset
from fxqat.demo.signs import CLASSES
from fxqat.errors import Problem
from fxqat.files import MARK, sha256

_DATA = ("--data", "data/data.yaml")
_FEW = (*_DATA, "--imgsz", "64", "--images", "8")
_TRAIN = (*_DATA, "--imgsz", "64", "--epochs", "2", "--batch", "4", "--device", "cpu", "--set", "compile=false")
# In the order of the chain: each reads what those before it wrote.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("prepare", "n.yaml", "--policy", "w8a8", "-o", "n.fxqat"),
    "calibrate": ("calibrate", "n.fxqat", *_FEW),
    "train": ("train", "n_ptq.fxqat", *_TRAIN),
    "convert": ("convert", "n_ptq.fxqat"),
    "export": ("export", "n_int8.fxqat"),
    # one thread: a copy of a process that has had two waits for the second, which was not copied, for ever
    "val": ("val", "n_ptq.fxqat", "n_int8.onnx", *_FEW, "--threads", "1", "--json", "val.json"),
    "verify": ("verify", "n_ptq.fxqat", *_FEW, "--json", "verify.json"),
    "analyze": ("analyze", "n_ptq.fxqat", *_FEW, "--csv", "sites.csv"),
    "report": ("report", "n_ptq.fxqat", *_FEW, "--pictures", "1"),
    "demo-data": ("demo-data", "signs", "--images", "20"),
}
_NEEDED = ("prepare", "calibrate", "convert", "export")  # by those after them
START = "start"
# What holds times: two runs differ there. Of a training the tensors are compared in the end.
_TIMED = frozenset({"val.json", "n_ptq.html", "n_qat", "n_qat.fxqat"})
_MADE_ANEW = ("n_qat", "signs")  # folders that their commands do not write into twice
# Not in a copy of this process: the start is what is tried, or gradients, which torch computes in no copy.
_ALONE = frozenset({START, "analyze", "report"})
_CACHED = ".cache"  # Ultralytics' note of a data set's labels, which holds the paths of this folder


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a command is ended: a signal, or None where its reader goes; and the exit code that a shell tells."""

    number: signal.Signals | None
    code: int


WAYS: Mapping[str, Way] = {
    "kill -9": Way(number=signal.SIGKILL, code=128 + signal.SIGKILL),
    "Ctrl-C": Way(number=signal.SIGINT, code=128 + signal.SIGINT),
    "SIGTERM": Way(number=signal.SIGTERM, code=128 + signal.SIGTERM),
    "closed pipe": Way(number=None, code=128 + signal.SIGPIPE),
}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The folder in which every command ran to its end, what it held before each of them, and the seconds of each."""

    folder: Path
    before: Mapping[str, frozenset[str]]
    seconds: Mapping[str, float]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file by its path in the folder."""
        return {str(path.relative_to(self.folder)): sha256(path) for path in _files(self.folder)}


def main() -> int:
    """Print the table."""
    options = parser("interruptions", __doc__)
    options.add_argument("--moments", type=int, default=10, help="of each command and way (default 10)")
    options.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options.add_argument("--commands", default=",".join((START, *COMMANDS)), help="only these (default: %(default)s)")
    return run(options.parse_args(), measure)


def measure(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count what came of each command and way, and print it.

    Raises:
        Problem: an unknown command, or some trials ended otherwise than they must; every one is printed.
    """
    names = options.commands.split(",")
    if unknown := set(names) - {START, *COMMANDS}:
        raise Problem("--commands", ", ".join(sorted(unknown)), expected=f"of {START}, {', '.join(COMMANDS)}")
    with tempfile.TemporaryDirectory(prefix="interruptions-") as folder:
        counts = trials(Path(folder), names, options.moments, options.seed)
    words = ("finished before", "ended", "temporary files", "went on to the same bits", "wrong")
    print(f"| command | way | {' | '.join(words)} |\n| {' | '.join('---' for _ in range(2 + len(words)))} |")
    for key, row in counts.items():
        print(f"| {key} | {' | '.join(str(row[word]) for word in words)} |")
    if wrong := sum(row["wrong"] for row in counts.values()):
        raise Problem("interruptions", f"{wrong} trials ended otherwise than they must", remedy="see above")
    return {key: dict(row) for key, row in counts.items()}


def trials(folder: Path, names: Sequence[str], moments: int, seed: int) -> dict[str, Counter[str]]:
    """Count, for each command and way, what came of ending it at so many random moments.

    Returns:
        ``finished before`` and ``ended`` in all; of these the trials that left ``temporary files`` (kill -9 alone may),
        the trainings that ``went on to the same bits``, and those that were ``wrong``, each of which is printed.
    """
    torch.set_num_threads(1)  # threads do not follow into a copy of the process
    dice, whole = random.Random(seed), _whole(folder / "whole", names)
    counts: dict[str, Counter[str]] = {}
    for name in names:
        for way in WAYS:
            row = counts.setdefault(f"{name} | {way}", Counter())
            for index in range(moments):
                place = folder / "trial"
                row.update(_trial(whole, place, name, way, dice.uniform(0.02, 0.98), f"{name}, {way}, {index}"))
                shutil.rmtree(place)
    return counts


def _whole(folder: Path, names: Sequence[str]) -> Whole:
    """Run the chain in this process, so that everything is imported, and then in copies, which are measured."""
    make_dataset(folder / "data", images=20, imgsz=160)
    architecture = {**ARCHITECTURE, "nc": len(CLASSES)}
    (folder / "n.yaml").write_text(yaml.safe_dump(architecture))
    before, seconds = {}, {}
    for name in (one for one in COMMANDS if one in names or one in _NEEDED):
        words = COMMANDS[name]
        files = [path.relative_to(folder) for path in _files(folder)]
        before[name] = frozenset(str(file) for file in files if file.parts[0] not in _MADE_ANEW)
        with chdir(folder), redirect_stdout(io.StringIO()):
            fxqat_main(words)
        for made in _MADE_ANEW:
            shutil.rmtree(folder / made, ignore_errors=True)
        start = time.monotonic()
        ended = _runner(name)(words, folder, lambda _: None)
        seconds[name] = time.monotonic() - start
        if ended.code:
            raise Problem(f"fxqat {name}", f"ended with {ended.code}: {ended.said}")
    if START in names:
        start = time.monotonic()
        run_alone(COMMANDS["prepare"], folder, lambda _: None)
        before[START], seconds[START] = before["prepare"], time.monotonic() - start
    return Whole(folder=folder, before=before, seconds=seconds)


def _trial(whole: Whole, place: Path, name: str, way: str, share: float, title: str) -> Iterator[str]:
    """What came of one trial, in the words of the table."""
    words, run_it = COMMANDS.get(name, COMMANDS["prepare"]), _runner(name)
    for file in whole.before[name]:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole.folder / file, place / file)
    ended = run_it(words, place, _ending(WAYS[way], share * whole.seconds[name]))
    left = [file for file in (path.relative_to(place) for path in _files(place)) if _is_temporary(file)]
    faults = list(_faults(whole, place, ended, name, way))
    faults += [f"left {path}" for path in left if way != "kill -9"]
    yield "ended" if ended.code else "finished before"
    if left:
        yield "temporary files"
    if name == "train" and not faults:
        faults += _resumed(whole, place)
        yield "went on to the same bits" if not faults else "went on otherwise"
    if faults:
        print(f"{title} ({share:.2f} of {whole.seconds[name]:.1f} s): {'; '.join(faults)}\n{ended.said}", flush=True)
        yield "wrong"


def _faults(whole: Whole, place: Path, ended: Ended, name: str, way: str) -> Iterator[str]:
    if ended.code not in (0, WAYS[way].code):
        yield f"exit code {ended.code}"
    # before the first line of fxqat runs, Python itself tells of Ctrl-C
    if "Traceback" in ended.said and name not in _ALONE:
        yield "a traceback"
    known = whole.digests()
    for path in _files(place):
        file = path.relative_to(place)
        if _is_temporary(file) or file.parts[0] in _TIMED or file.suffix == _CACHED:
            continue
        compare = _COMPARED.get(path.suffix)
        if not (compare(path, whole.folder / file) if compare else sha256(path) == known[str(file)]):
            yield f"{file} differs"


def _same_tensors(path: Path, other: Path) -> bool:
    """Whether two .fxqat files are whole and hold the same tensors; their headers hold times."""
    now, then = load_file(path), load_file(other)
    return now.keys() == then.keys() and all(torch.equal(now[key], then[key]) for key in now)


def _same_graph(path: Path, other: Path) -> bool:
    """Whether two .onnx files are whole and hold the same graph; their metadata hold times."""
    now, then = (onnx.load(file).graph.SerializeToString(deterministic=True) for file in (path, other))
    return now == then


_COMPARED: Mapping[str, Callable[[Path, Path], bool]] = {".fxqat": _same_tensors, ".onnx": _same_graph}


def _is_temporary(file: Path) -> bool:
    return file.parts[0] == "tmp" or any(part.startswith(MARK) for part in file.parts)


def _resumed(whole: Whole, place: Path) -> Iterator[str]:
    """Go on with the training in ``place``; how its result differs from the whole one's."""
    state = place / "n_qat" / "weights" / "state.safetensors"
    ended = run_copied((*COMMANDS["train"], *(["--resume"] if state.is_file() else [])), place, lambda _: None)
    if ended.code:
        yield f"could not go on ({ended.code}): {ended.said}"
        return
    if not _same_tensors(place / "n_qat.fxqat", whole.folder / "n_qat.fxqat"):
        yield "went on to other tensors"


def _ending(way: Way, delay: float) -> Callable[[Process], None]:
    def end(process: Process) -> None:
        process.read_for(delay)
        if way.number is None:
            process.close()
        else:
            process.kill(way.number)

    return end


def _runner(name: str) -> Callable[[Sequence[str], Path, Callable[[Process], None]], Ended]:
    return run_alone if name in _ALONE else run_copied


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
