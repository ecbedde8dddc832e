"""Files that are either whole or absent: write beside the target, fsync, rename; and what a disk refuses, in one
line."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fxqat.errors import Problem

# What a disk, its limits or its permissions refuse; any other OSError is a defect.
_REFUSED = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
        *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR),
    }
)
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_LONGEST_SUFFIX = 16
MARK = ".fxqat-"  # how the names of what is temporary begin


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it is synced and renamed over the target.

    Whatever happens inside the block, ``target`` is its old self or its complete new self (POSIX rename is atomic).
    The temporary file keeps the target's suffix, since several libraries choose the format by it. A link keeps leading
    to the file it leads to. What is no file but a device or a pipe (``/dev/null``) is written to, not replaced.

    Raises:
        Problem: the folder is missing or cannot be written, or the disk is full.
    """
    target = Path(target)
    check_writable(target)
    with disk_refusals(target):
        if _is_device(target):
            with _copied_into(target) as temporary:
                yield temporary
            return
        real = Path(os.path.realpath(target))
        with _temporary(real.parent, real.suffix) as temporary:
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(real)
            _sync(real.parent)


@contextmanager
def disk_refusals(where: object = "") -> Iterator[None]:
    """Turn what a disk refuses inside the block (full, read-only, no permission, a name too long) into a Problem.

    Args:
        where: named in the Problem; by default the file that the error names.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise refusal(error, where) from error


def refusal(error: OSError, where: object = "") -> Problem:
    """The Problem that stands for an error of the disk."""
    remedy = "make room, or choose a place on another disk" if error.errno in _FULL else "choose another place or name"
    words = f"cannot be read or written ({error.strerror or error})"
    return Problem(where or error.filename or "output", words, remedy=remedy)


def disk_errno(text: str) -> int | None:
    """The number in ``(os error 28)``, as libraries in Rust report the disk's refusals."""
    _, _, tail = text.rpartition("(os error ")
    digits = tail.partition(")")[0]
    return int(digits) if digits.isdigit() else None


@contextmanager
def locked(folder: str | Path, what: str) -> Iterator[None]:
    """Keep ``folder`` to this process, by a lock that the system drops when the process ends, however it ends.

    Raises:
        Problem: another process keeps it; ``what`` says for what.
    """
    path = Path(folder) / ".lock"
    with open(path, "ab") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno not in _TAKEN:  # a file system without locks
                yield
                return
            raise Problem(
                folder, f"{what} is running there", remedy="wait for its end, or choose another -o"
            ) from error
        yield


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder for a time, where the environment says (TMPDIR).

    Raises:
        Problem: there is no place for it.
    """
    with ExitStack() as made:
        try:
            folder = made.enter_context(scratch_folder(None, prefix))
        except OSError as error:
            raise Problem("TMPDIR", f"no temporary folder can be made ({error.strerror or error})") from error
        yield folder


@contextmanager
def scratch_folder(parent: Path | None, prefix: str = MARK) -> Iterator[Path]:
    """A new folder in ``parent`` (by default in TMPDIR), removed at the end where it is still there.

    Raises:
        OSError: it cannot be made.
    """
    path = _new_name(parent, prefix)
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_bytes(target: str | Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``target`` atomically; what is no character (of a file's name) becomes ``?``."""
    write_bytes(target, text.encode(errors="replace"))


def link(source: str | Path, target: Path) -> None:
    """Make ``target`` a link to the file ``source``, a copy where there can be no links; what is there stays."""
    if target.exists():
        return
    try:
        target.symlink_to(os.path.abspath(source))
    except FileExistsError:  # another process was faster
        return
    except OSError:  # Windows without the privilege, or a file system without links
        shutil.copyfile(source, target)


def check_suffix(target: str | Path, *suffixes: str) -> None:
    """Raise a Problem when ``target`` ends in none of ``suffixes``, by which commands know files again."""
    found = Path(target).suffix
    if suffixes and found not in suffixes:
        legal = " or ".join(suffixes)
        raise Problem(target, f"ends in {found or 'nothing'!r}", expected=f"a name that ends in {legal}")


def check_writable(target: str | Path) -> None:
    """Raise a Problem when ``target`` cannot be created, before any long work is done for it."""
    target = Path(target)
    try:
        is_folder, has_folder = target.is_dir(), target.parent.is_dir()
        if is_folder:
            raise Problem(target, "is a folder", expected="the name of a file to write", remedy="choose another -o")
        if not has_folder:
            raise Problem(target, "its folder does not exist", remedy=f"create {target.parent} or choose another -o")
        if not _is_device(target):
            _probe(Path(os.path.realpath(target)))
    except OSError as error:
        why = error.strerror or str(error)
        raise Problem(target, f"cannot be written ({why})", remedy="choose another -o") from error


def check_folder(folder: str | Path) -> None:
    """Raise a Problem when ``folder`` is none (also a link that leads nowhere) and cannot be made, or cannot be
    written to; nothing is made."""
    folder = Path(folder)
    try:
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists() or one.is_symlink())
        if not there.is_dir():
            raise Problem(there, "is no folder", expected="a folder", remedy="choose another")
        _probe(there / "probe")
    except OSError as error:
        raise Problem(folder, f"cannot be written ({error.strerror or error})", remedy="choose another") from error


def make_folder(folder: str | Path, option: str) -> Path:
    """Make ``folder``, and those above it, where they are missing.

    Args:
        folder: where files will be written.
        option: of the command line, which the remedy names.

    Returns:
        The folder.

    Raises:
        Problem: it cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(folder, f"cannot be made ({error.strerror})", remedy=f"choose another {option}") from error
    return folder


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_device(target: Path) -> bool:
    if str(target).startswith(("/dev/", "/proc/")):
        return target.exists()
    return target.exists() and not stat.S_ISREG(target.stat().st_mode)


def _probe(target: Path) -> None:
    """Make a file in the target's folder and remove it; the target's own name is only asked for."""
    with _temporary(target.parent, ""):
        pass


@contextmanager
def _temporary(folder: Path | None, suffix: str) -> Iterator[Path]:
    # a short name: the target's own may be as long as the file system allows
    path = _new_name(folder, MARK, suffix if len(suffix) <= _LONGEST_SUFFIX else "")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        yield path
    finally:
        path.unlink(missing_ok=True)


def _new_name(folder: Path | None, prefix: str, suffix: str = "") -> Path:
    """A path that nothing has yet. It is known before it is made (``tempfile.mkstemp`` does both), so that a signal
    between the two leaves nothing behind."""
    return Path(folder or tempfile.gettempdir(), f"{prefix}{secrets.token_hex(8)}{suffix}")


@contextmanager
def _copied_into(target: Path) -> Iterator[Path]:
    with _temporary(None, target.suffix) as temporary:
        yield temporary
        with open(temporary, "rb") as source, open(target, "wb") as device:
            shutil.copyfileobj(source, device)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
