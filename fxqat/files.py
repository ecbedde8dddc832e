"""Files that are either whole or absent: write beside the target, fsync, rename."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fxqat.errors import Problem


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it is synced and renamed over the target.

    Whatever happens inside the block, ``target`` is its old self or its complete new self (POSIX rename is atomic).
    The temporary file keeps the target's suffix, since several libraries choose the format by it.

    Raises:
        Problem: the folder is missing or cannot be written.
    """
    target = Path(target)
    check_writable(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: str | Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``target`` atomically."""
    write_bytes(target, text.encode())


def check_suffix(target: str | Path, suffix: str) -> None:
    """Raise a Problem when ``target`` does not end in ``suffix``, by which commands know files again."""
    found = Path(target).suffix
    if suffix and found != suffix:
        raise Problem(target, f"ends in {found or 'nothing'!r}", expected=f"a name that ends in {suffix}")


def check_writable(target: str | Path) -> None:
    """Raise a Problem when ``target`` cannot be created, before any long work is done for it."""
    target = Path(target)
    if target.is_dir():
        raise Problem(target, "is a folder", expected="the name of a file to write", remedy="choose another -o")
    if not target.parent.is_dir():
        raise Problem(target, "its folder does not exist", remedy=f"create {target.parent} or choose another -o")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".fxqat-probe-")
    except OSError as error:
        why = error.strerror or str(error)
        raise Problem(target, f"cannot be written ({why})", remedy="choose another -o") from error
    os.close(handle)
    os.unlink(name)


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
