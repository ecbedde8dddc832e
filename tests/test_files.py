"""Files that are whole or absent: full and limited disks, names, devices, links, locks; what a terminal cannot show."""

from __future__ import annotations

import errno
import importlib
import io
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal

from fxqat import cli, commands
from fxqat.checkpoint.tensors import write_tensors
from fxqat.files import (
    check_folder,
    check_writable,
    disk_refusals,
    locked,
    replacing,
    scratch_folder,
    temporary_folder,
    write_bytes,
    write_text,
)
from fxqat.json_text import json_text

FULL = "cannot be read or written (No space left on device); make room, or choose a place on another disk"
LONGEST = 255  # bytes of a name, on every file system that tests run on


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow over ``size`` bytes, as under ``ulimit -f``; Python ignores the signal: writing is refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.bin"
    write_bytes(path, b"old")
    with disk_of(1000):
        said = refusal(write_bytes, path, bytes(2000))
    assert said == f"{path}: cannot be read or written (File too large); choose another place or name"
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["x.bin"]


def test_tensors_are_refused_in_the_same_words(tmp_path):
    path = tmp_path / "x.safetensors"
    with disk_of(1000):
        said = refusal(write_tensors, path, {"x": torch.zeros(1000)}, {})
    assert said == f"{path}: cannot be read or written (File too large); choose another place or name"
    assert not list(tmp_path.iterdir())


def test_a_defect_is_no_refusal_of_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x") as temporary:
        temporary.with_name("missing").read_bytes()
    with pytest.raises(OSError, match="broken"), disk_refusals():
        raise OSError(errno.EPIPE, "broken")


@pytest.mark.parametrize("stem", [LONGEST - len(".onnx"), 5])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path, stem):
    path = tmp_path / ("n" * stem + ".onnx")
    with replacing(path) as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_bytes(b"x")
    assert path.read_bytes() == b"x"


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path):
    path = tmp_path / ("n" * LONGEST + ".onnx")
    assert refusal(check_writable, path) == f"{path}: cannot be written (File name too long); choose another -o"
    folder = tmp_path / ("n" * (LONGEST + 1))
    assert refusal(check_folder, folder) == f"{folder}: cannot be written (File name too long); choose another"


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_text("")
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    for folder, inner in (("a", "b"), ("a", ""), ("c", "")):
        line = f"{tmp_path / folder}: is no folder; expected a folder; choose another"
        assert refusal(check_folder, tmp_path / folder / inner) == line


def test_devices_and_pipes_are_written_to_not_replaced(tmp_path):
    assert refusal(write_text, "/dev/full", "x") == f"/dev/full: {FULL}"
    write_text("/dev/null", "x")
    assert not Path("/dev/null").is_file()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        write_text(pipe, "x")
        assert reader.communicate()[0] == b"x"
    assert not pipe.is_file()


def test_a_link_keeps_leading_to_its_file(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.txt", tmp_path / "there" / "target.txt"
    link.symlink_to(target)
    write_text(link, "x")
    assert link.is_symlink()
    assert target.read_text() == "x"


def test_a_locked_folder_is_one_processs_until_it_ends(tmp_path):
    code = f"import sys; from fxqat.files import locked\nwith locked({str(tmp_path)!r}, 'a training'):\n"
    code += "    print('mine', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout.readline() == b"mine\n"
        said = refusal(locked(tmp_path, "another training").__enter__)
        other.kill()
    assert said == f"{tmp_path}: another training is running there; wait for its end, or choose another -o"
    with locked(tmp_path, "a training"):
        pass


def test_no_place_for_temporary_files(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    said = refusal(temporary_folder("x-").__enter__)
    assert said == "TMPDIR: no temporary folder can be made (No such file or directory)"


class TestTheCommandLine:
    @staticmethod
    def screen(monkeypatch, encoding: str) -> tuple[io.BytesIO, io.BytesIO]:
        """Standard output and error in ``encoding``, which refuses what it lacks."""
        out, err = io.BytesIO(), io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding, write_through=True))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding, write_through=True))
        return out, err

    @pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"gr\xf6\u20ac"), ("cp1252", b"gr\xf6\x80")])
    def test_what_a_terminal_cannot_show_is_escaped(self, monkeypatch, encoding, shown):
        _, err = self.screen(monkeypatch, encoding)
        assert cli.main(["sites", "gr\u00f6\u20ac.yaml"]) == 2
        assert err.getvalue().startswith(b"fxqat: " + shown + b".yaml: no such architecture")

    def test_a_name_that_the_locale_has_no_bytes_for(self, monkeypatch):
        def run(options: object) -> None:
            raise UnicodeEncodeError(sys.getfilesystemencoding(), "\u00f6.jpg", 0, 1, "no bytes")

        _, err = self.screen(monkeypatch, "ascii")
        monkeypatch.setattr(cli, "command_line", lambda arguments: type("Options", (), {"run": staticmethod(run)})())
        assert cli.main([]) == 2
        words = f"has characters that file names have not in this locale ({sys.getfilesystemencoding()})"
        assert err.getvalue().decode() == f"fxqat: '\\xf6.jpg': {words}; set PYTHONUTF8=1\n"

    @pytest.mark.parametrize("raised", [KeyboardInterrupt, BrokenPipeError])
    def test_an_end_while_the_command_line_is_read(self, monkeypatch, capsys, raised):
        def parsed(arguments: object) -> None:
            raise raised

        monkeypatch.setattr(cli, "command_line", parsed)
        number, said = {
            KeyboardInterrupt: (signal.SIGINT, "fxqat: interrupted; nothing is half-written\n"),
            BrokenPipeError: (signal.SIGPIPE, ""),
        }[raised]
        assert cli.main([]) == 128 + number
        assert capsys.readouterr().err == said

    def test_nohup_keeps_a_command_running(self, monkeypatch):
        def run(options: object) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

        monkeypatch.setattr(cli, "command_line", lambda arguments: type("Options", (), {"run": staticmethod(run)})())
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert cli.main([]) == 0
        finally:
            signal.signal(signal.SIGHUP, before)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_command_that_is_asked_to_end_leaves_nothing_half_written(self, monkeypatch, tmp_path, number):
        def run(options: object) -> None:
            with replacing(tmp_path / "x") as temporary:
                temporary.write_text("half")
                os.kill(os.getpid(), number)
                time.sleep(60)

        monkeypatch.setattr(cli, "command_line", lambda arguments: type("Options", (), {"run": staticmethod(run)})())
        outside = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored
        try:
            with pytest.raises(SystemExit) as caught:
                cli.main([])
            assert signal.getsignal(number) is signal.SIG_DFL
        finally:
            signal.signal(number, outside)
        assert caught.value.code == 128 + number
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_waits_for_the_end_of_an_import(self, monkeypatch, tmp_path, number, capsys):
        """C++ that imports a module ends the process with an abort where Python raises in it."""
        (tmp_path / "slow_module.py").write_text(
            f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.1)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        whole = []

        def run(options: object) -> None:
            importlib.import_module("slow_module")
            whole.append(True)
            time.sleep(60)

        monkeypatch.setattr(cli, "command_line", lambda arguments: type("Options", (), {"run": staticmethod(run)})())
        started = time.monotonic()
        try:
            code = cli.main([])
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.modules.pop("slow_module", None)
        assert (code, whole) == (128 + number, [True])
        assert time.monotonic() - started < 30

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_that_python_drops_is_sent_again(self, monkeypatch, number, capsys):
        """What is raised in a destructor never leaves it."""

        class Ends:
            def __del__(self) -> None:
                os.kill(os.getpid(), number)
                time.sleep(0.001)

        def run(options: object) -> None:
            ends = Ends()
            del ends
            time.sleep(60)

        monkeypatch.setattr(cli, "command_line", lambda arguments: type("Options", (), {"run": staticmethod(run)})())
        hook, started = sys.unraisablehook, time.monotonic()
        if number == signal.SIGINT:
            assert cli.main([]) == 128 + number
        else:
            with pytest.raises(SystemExit) as caught:
                cli.main([])
            assert caught.value.code == 128 + number
        assert time.monotonic() - started < 30
        assert sys.unraisablehook is hook
        assert "Traceback" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("command", "code", "says"),
        [
            ("> /dev/full", 2, f"fxqat: output: {FULL}\n"),
            ("| true", 128 + signal.SIGPIPE, ""),
            (">&-", 0, ""),
        ],
    )  # fmt: skip
    def test_an_output_that_nobody_takes(self, command, code, says):
        line = f"set -o pipefail; {sys.executable} -m fxqat.cli sites yolov8n.yaml {command}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, says)


def hold_a_folder(target: Path) -> None:
    with scratch_folder(target.parent):
        pass


@pytest.mark.parametrize("made", [check_writable, partial(write_bytes, data=b"new"), hold_a_folder])
def test_a_signal_the_moment_a_temporary_file_exists_leaves_nothing(
    made: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes a signal at the first moment after the call that made the file."""

    def ended(act: Callable[..., Any]) -> Callable[..., Any]:
        def act_and_end(path: Path, *words: Any, **named: Any) -> Any:
            made = act(path, *words, **named)
            if Path(path).parent == tmp_path:
                monkeypatch.undo()  # the signal comes once
                raise SystemExit(143)
            return made

        return act_and_end

    monkeypatch.setattr(os, "open", ended(os.open))
    monkeypatch.setattr(os, "mkdir", ended(os.mkdir))
    with pytest.raises(SystemExit):
        made(tmp_path / "x.fxqat")
    assert list(tmp_path.iterdir()) == []


def test_json_has_null_where_it_has_no_number() -> None:
    value = {
        "sqnr": math.inf,
        "rows": [(1.5, -math.inf), {"r": math.nan}],
        "name": "\u6807\u5fd7",
        "count": 3,
        "ok": True,
    }
    rows = [[1.5, None], {"r": None}]
    text = json_text(value)
    assert json.loads(text, parse_constant=pytest.fail) == {**value, "sqnr": None, "rows": rows}


def test_commands_write_json_through_one_function() -> None:
    """So that none of them can write what is no JSON; programs of this package alone read what the others write."""
    ours = {"step_rates.py"}
    files = Path(commands.__file__).parent.glob("*.py")
    assert {path.name for path in files if "json.dumps(" in path.read_text()} == ours
