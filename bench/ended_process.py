"""A command of fxqat as a process that its parent ends: its exit code, and what it wrote to stderr."""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fxqat.cli import main as fxqat_main

_PATIENCE = 600  # seconds


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that came to its end: its code as a shell tells it, and what it wrote to stderr."""

    code: int
    said: str


@dataclass
class Process:
    """A running process, and the end of the pipe that it prints to."""

    pid: int
    reader: int
    closed: bool = False

    def read_for(self, seconds: float) -> None:
        """Read what it prints, until then or its end."""
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0 and not self.closed:
            if select.select([self.reader], [], [], rest)[0] and not os.read(self.reader, 65536):
                self.close()

    def close(self) -> None:
        """Stop reading."""
        if not self.closed:
            os.close(self.reader)
            self.closed = True

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)  # it is not waited for yet, so the number is still its own

    def code(self) -> int:
        """Wait for its end; the code as a shell tells it."""
        self.read_for(_PATIENCE)
        self.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code if code >= 0 else 128 - code


def run_copied(words: Sequence[str], folder: Path, then: Callable[[Process], None]) -> Ended:
    """``fxqat WORDS`` in a copy of this process, in which everything is imported already."""
    return _watched(folder, lambda: _exit_code(words), then)


def run_alone(words: Sequence[str], folder: Path, then: Callable[[Process], None]) -> Ended:
    """``fxqat WORDS`` in a process of its own."""
    return _watched(folder, lambda: os.execv(sys.executable, [sys.executable, "-m", "fxqat.cli", *words]), then)


def _watched(folder: Path, act: Callable[[], int], then: Callable[[Process], None]) -> Ended:
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _become(folder, writer, said.fileno(), act)
        os.close(writer)
        process = Process(pid, reader)
        then(process)
        code = process.code()
        said.seek(0)
        return Ended(code=code, said=said.read().decode(errors="replace"))


def _become(folder: Path, output: int, errors: int, act: Callable[[], int]) -> None:
    """Turn the copy into the command, and end it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.close(output)
    # those of the parent may stand on a file, which can seek
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(folder)
    (folder / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os._exit(act())


def _exit_code(words: Sequence[str]) -> int:
    try:
        return fxqat_main(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
