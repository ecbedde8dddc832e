"""The file formats of ``torch.save``: a zip archive since torch 1.6, a row of pickles before it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fxqat.errors import Problem
from fxqat.models.pickle_reader import Malformed, PickleReader, Refused, Vocabulary

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_DAMAGED = (EOFError, LookupError, RuntimeError, ValueError, struct.error, zlib.error)  # what zipfile raises besides
_PADDING = 64  # bytes by which a record may be longer than its tensors
# What people find under the name of a checkpoint, by its first bytes.
_FOREIGN = {
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file itself", "run git lfs pull"),
    b"<": ("is a web page, not a checkpoint", "download the file itself"),
}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The memory of one or more tensors: ``elements`` (N,) of its dtype, on the CPU."""

    elements: Tensor


@dataclass
class _Stored:
    """A vocabulary whose persistent ids are found in a file."""

    vocabulary: Vocabulary
    storages: _ZipStorages | _LegacyStorages

    def find(self, module: str, name: str) -> Any:
        return self.vocabulary.find(module, name)

    def build(self, instance: Any, state: Any) -> None:
        self.vocabulary.build(instance, state)

    def persistent(self, key: Any) -> Any:
        return self.storages[key]


def load(path: Path, vocabulary: Vocabulary) -> Any:
    """What ``torch.save`` wrote into ``path``, in either format, as far as ``vocabulary`` goes.

    Raises:
        Problem: the file is of another kind, or cut short.
        Refused: its pickle asks for what the vocabulary does not offer.
        Malformed: it is damaged.
    """
    with open(path, "rb") as file:
        start = file.read(64)
        file.seek(0)
        if start.startswith(_ZIP):
            return _load_zip(path, file, vocabulary)
        if start.startswith(_PICKLE):
            return _load_legacy(path, file, vocabulary)
    for magic, (what, remedy) in _FOREIGN.items():
        if start.startswith(magic):
            raise Problem(path, what, expected="a .pt file", remedy=remedy)
    raise _not_torch(path)


def _not_torch(path: Path) -> Problem:
    return Problem(
        path, "is not a checkpoint of torch.save, or is damaged", expected="a .pt file", remedy="download it again"
    )


def _load_zip(path: Path, file: IO[bytes], vocabulary: Vocabulary) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            storages = _ZipStorages(archive, _root(path, archive))
            return PickleReader(BytesIO(storages.record("data.pkl")), _Stored(vocabulary, storages)).load()
    except zipfile.BadZipFile as error:
        raise _not_torch(path) from error
    except _DAMAGED as error:
        raise Malformed(f"damaged archive: {error}") from error


def _root(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder inside the archive that ``torch.save`` put everything into, with its slash."""
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise Problem(
            path, "is an archive of something else (no data.pkl)", expected="a .pt file", remedy="download it again"
        )
    if f"{roots[0]}constants.pkl" in names:
        raise Problem(
            path,
            "is a TorchScript archive, not a checkpoint",
            expected="a .pt written by training",
            remedy="use the .pt it was exported from",
        )
    return roots[0]


class _ZipStorages:
    """Storages as records ``data/KEY``; the persistent id is ("storage", dtype, KEY, location, elements)."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root = archive, root
        self.read: dict[str, Storage] = {}
        swapped = f"{root}byteorder" in archive.namelist() and self.record("byteorder") != b"little"
        if swapped:
            raise Refused("it was written on a big-endian machine")  # torch swaps bytes where it is trusted

    def record(self, name: str) -> bytes:
        info = self.archive.getinfo(self.root + name)
        if not info.CRC:
            del info.CRC  # torch.serialization.set_crc32_options(False) writes zeros, which zipfile would check
        return self.archive.read(info)

    def __getitem__(self, key: Any) -> Storage:
        dtype, name, count = _parts(key, 5)
        if name not in self.read:
            if self.archive.getinfo(f"{self.root}data/{name}").file_size > count * dtype.itemsize + _PADDING:
                raise Malformed(f"damaged: tensor data {name} is longer than its tensor")
            self.read[name] = Storage(elements=_filled(self.record(f"data/{name}"), dtype, count))
        return self.read[name]


def _load_legacy(path: Path, file: IO[bytes], vocabulary: Vocabulary) -> Any:
    """Magic number, version and machine, the object, the keys of its storages, then count and bytes of each."""
    storages = _LegacyStorages(path.stat().st_size)
    stored = _Stored(vocabulary, storages)
    magic = PickleReader(file, stored).load()
    if magic != _LEGACY_MAGIC:
        raise _not_torch(path)
    version, machine = PickleReader(file, stored).load(), PickleReader(file, stored).load()
    if version != _LEGACY_VERSION or not (isinstance(machine, dict) and machine.get("little_endian", True)):
        raise Refused("it was written in another byte order or format version")
    content = PickleReader(file, stored).load()
    storages.fill(PickleReader(file, stored).load(), file)
    return content


class _LegacyStorages:
    """Storages whose data follow after the pickle, so tensors are made first and filled later.

    The persistent id is ("storage", dtype, KEY, location, elements, view), with view None or (KEY, offset, elements),
    or ("module", class, source file, source) for a class of layers.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self.made: dict[str, Storage] = {}

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 4 and key[0] == "module":
            return key[1]
        dtype, name, count = _parts(key, 6)
        if name not in self.made:
            self.left -= count * dtype.itemsize
            if self.left < 0:
                raise Malformed(f"damaged: tensor data {name} would be longer than the file")
            self.made[name] = Storage(elements=torch.zeros(count, dtype=dtype))
        if key[5] is None:
            return self.made[name]
        _, offset, length = key[5]
        return replace(self.made[name], elements=self.made[name].elements.narrow(0, offset, length))

    def fill(self, keys: Any, file: IO[bytes]) -> None:
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys) and set(keys) == set(self.made)):
            raise Malformed("damaged: its list of tensor data does not fit")
        for key in keys:
            elements = self.made[key].elements
            count = int.from_bytes(file.read(8), "little")
            if count != len(elements):
                raise Malformed(f"damaged: tensor data {key} holds {count} elements")
            elements.copy_(_filled(file.read(count * elements.dtype.itemsize), elements.dtype, count))


def _parts(key: Any, length: int) -> tuple[torch.dtype, str, int]:
    """dtype, name and number of elements of the persistent id of a storage."""
    if not isinstance(key, tuple) or len(key) != length or key[0] != "storage":
        raise Refused("it names something outside the pickle that is no tensor data")
    dtype, name, count = key[1], key[2], key[4]
    if not (isinstance(dtype, torch.dtype) and isinstance(name, str) and isinstance(count, int) and count >= 0):
        raise Malformed("damaged: tensor data without type, name or length")
    return dtype, name, count


def _filled(data: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """A tensor (count,) with memory of its own."""
    if len(data) < count * dtype.itemsize:
        raise Malformed("damaged: it ends within tensor data")
    return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
