"""The command line: a thin layer over the Python API. Bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from fxqat.commands.command import check_places
from fxqat.commands.completion import complete
from fxqat.commands.parser import command_line, parser
from fxqat.errors import Problem
from fxqat.files import disk_refusals
from fxqat.models.environment import environment

_BY_SIGNAL = 128  # added to a signal's number it is the exit code that a shell tells
_SOON = 0.01  # seconds
_IMPORT = "<frozen importlib._bootstrap>"  # the code of every import
_PIPE_CLOSED = _BY_SIGNAL + 13  # as a shell tells of SIGPIPE, a number that Windows does not know


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    _print_any_character()
    if "_ARGCOMPLETE" in os.environ:
        complete(parser(whole=True))
    with _ending_cleanly():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with disk_refusals():
            options = command_line(arguments)
            check_places(options)
            options.run(options)
            print(end="", flush=True)
    except Problem as problem:
        print(f"fxqat: {problem}", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:
        if error.encoding != sys.getfilesystemencoding():
            raise
        what = f"has characters that file names have not in this locale ({error.encoding})"
        print(f"fxqat: {error.object!a}: {what}; set PYTHONUTF8=1", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fxqat: interrupted; nothing is half-written", file=sys.stderr)
        return _BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # the reader (head, less) has seen enough, and the command did not come to its end
        return _PIPE_CLOSED
    finally:
        _drop_output()
    return 0


def _print_any_character() -> None:
    """What the terminal's encoding lacks is printed as an escape: no work is lost for a character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Let Python's own flush at the end of the process find nobody to complain to."""
    if sys.stdout is None:  # closed by the shell (>&-)
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """When the process is asked to end (SIGTERM, or SIGHUP unless nohup has it ignored), what is half-written is
    removed first; the exit code is 128 and the signal's number, as a shell tells it.

    Python drops what is raised in a destructor or in a callback of a weak reference. A signal that came there is sent
    again; so is one that comes while a module is imported, since C++ that imports modules ends the process with an
    abort where Python raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            _send_soon(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(_BY_SIGNAL + number)

    def again(given: sys.UnraisableHookArgs) -> None:
        number = _asked_for(given.exc_value)
        if number in before:
            _send_soon(number)
        else:
            hook(given)

    asked = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {one: signal.signal(one, end) for one in asked if signal.getsignal(one) not in {signal.SIG_IGN, None}}
    hook, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for one, handler in before.items():
            signal.signal(one, handler)


def _send_soon(number: int) -> None:
    """Send this process a signal from another thread, since the one that asks could not take it now."""
    threading.Timer(_SOON, os.kill, (os.getpid(), number)).start()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported by what runs in ``frame``."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


def _asked_for(error: BaseException | None) -> int:
    """The number of the signal that ``error`` stands for; of another error, none that there is."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else 0
    return code - _BY_SIGNAL if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
