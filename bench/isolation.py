"""Trials in copies of this process: what ends a copy, a crash in native code or a hang, is counted and not suffered."""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

CRASHED, HUNG = "crashed", "hung"
_PATIENCE = 60  # seconds a trial


def isolated(trial: Callable[[int], str], count: int) -> Iterator[str]:
    """What ``trial(0)``, ``trial(1)`` ... say, each one line; ``crashed`` or ``hung`` where that ended the copy.

    What a trial raises is printed, and told as ``crashed: TYPE``.
    """
    done = 0
    while done < count:
        for word in _copy(trial, done, count):
            yield word
            done += 1


def _copy(trial: Callable[[int], str], first: int, count: int) -> Iterator[str]:
    """The words of one copy, until it ends; the last one says how, where that is not after the last trial."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _work(trial, range(first, count), writer)
    os.close(writer)
    told = first
    with open(reader, encoding="utf-8") as lines:
        while select.select([reader], [], [], _PATIENCE)[0] and (line := lines.readline()):
            yield line.rstrip("\n")
            told += 1
        hung = not select.select([reader], [], [], 0)[0]
    if hung:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if told < count:
        word = HUNG if hung else CRASHED
        print(f"trial {told} {word}", file=sys.stderr, flush=True)
        yield word


def _work(trial: Callable[[int], str], numbers: range, writer: int) -> None:
    with open(writer, "w", encoding="utf-8") as answers:
        for number in numbers:
            try:
                answer = trial(number)
            except Exception as error:
                traceback.print_exc()
                answer = f"{CRASHED}: {type(error).__name__}"
            print(" ".join(answer.split()), file=answers, flush=True)
    os._exit(0)
