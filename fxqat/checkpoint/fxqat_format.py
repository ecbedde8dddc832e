"""The .fxqat file: tensors as safetensors, the record as JSON in its header, graphs as packed JSON among the tensors.

No pickle, written whole or not at all. What stands in it is data: ``fxqat.graph.deserialize`` builds graphs of it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fxqat.checkpoint.tensors import write_tensors
from fxqat.errors import Problem
from fxqat.graph.serialize import Structure
from fxqat.models.detector import PassRecord, Recipe, RuleFile, Source
from fxqat.version import VERSION

FORMAT = 2
_KEY = "fxqat"
_CHECKSUM = "sha256"
_GRAPHS = "#graphs"  # no module's path has such a character
_MOST_BYTES = 1 << 28  # of JSON that a file may be unpacked to; yolov8x takes a hundredth of it
# What reading JSON that is none of ours raises.
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a .fxqat file holds.

    Attributes:
        source: of the detector.
        recipe: of the detector.
        graph: of the detector, without its numbers.
        network: its float network, see ``fxqat.models.detector.Detector``.
        tensors: the numbers, by name; of a tensor with several names, the first alone.
    """

    source: Source
    recipe: Recipe
    graph: Structure
    network: Structure | None
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A file of any format, its checksums right: the header, and every tensor."""

    header: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def write(path: str | Path, content: Content) -> None:
    """Write atomically.

    Raises:
        Problem: the path cannot be written.
    """
    kept = {name: tensor.detach().cpu() for name, tensor in content.tensors.items()}
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in kept.items()}
    recipe = asdict(content.recipe)
    diffs = [done.pop("diff") for done in recipe["passes"]]
    tensors[_GRAPHS] = _packed({"graph": content.graph, "network": content.network, "diffs": diffs})
    header = {
        "format": FORMAT,
        "source": {**asdict(content.source), "names": {str(k): v for k, v in content.source.names.items()}},
        "recipe": recipe,
        "tensors_sha256": _digest(tensors),
        "versions": versions(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    words = json.dumps(header)
    write_tensors(path, tensors, {_KEY: words, _CHECKSUM: hashlib.sha256(words.encode()).hexdigest()})


def read(path: str | Path) -> Raw:
    """Read a file of any format and check that it is whole.

    Raises:
        Problem: missing, empty, damaged, truncated, of another kind, or written by a newer fxqat.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .fxqat file", remedy=f"make it with fxqat {_maker(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise Problem(
            path, f"is damaged or truncated ({error})", expected="a .fxqat file", remedy="make it again"
        ) from error
    if _KEY not in found:
        raise Problem(path, "is a safetensors file of another program", expected="a .fxqat file")
    try:
        return Raw(header=_header(path, found, tensors), tensors=tensors)
    except _NONSENSE as error:
        raise _damaged(path, error) from error


def content(raw: Raw, path: str | Path) -> Content:
    """What a file of format 2 holds; ``path`` stands in errors.

    Raises:
        Problem: its record makes no sense.
    """
    try:
        graphs = _unpacked(raw.tensors[_GRAPHS])
        return Content(
            source=source_of(raw.header["source"]),
            recipe=_recipe(raw.header["recipe"], graphs["diffs"]),
            graph=graphs["graph"],
            network=graphs["network"],
            tensors={name: tensor for name, tensor in raw.tensors.items() if name != _GRAPHS},
        )
    except (*_NONSENSE, zlib.error) as error:
        raise _damaged(path, error) from error


def source_of(told: Mapping[str, Any]) -> Source:
    """A source as its file tells it; KeyError, TypeError or ValueError where that makes no sense."""
    names = {int(key): str(value) for key, value in told["names"].items()}
    head = {key: tuple(one) if isinstance(one, list) else one for key, one in told.get("head", {}).items()}
    source = Source(**{**told, "names": names, "stride": tuple(float(one) for one in told["stride"]), "head": head})
    if not (source.family and source.head_spec):
        raise ValueError("its head makes no sense")
    return source


# What a file's name ends in, as the command line names them, and the command that makes such a file.
_MAKERS = (("_ptq", "calibrate"), ("_qat", "train"), ("_int8", "convert"))


def _maker(path: Path) -> str:
    return next((command for mark, command in _MAKERS if path.stem.endswith(mark)), "prepare")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {
        "fxqat": VERSION,
        "torch": str(torch.__version__),
        "ultralytics": metadata.version("ultralytics"),
        "python": platform.python_version(),
    }


def _header(path: Path, found: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    words = found[_KEY]
    if found.get(_CHECKSUM) not in {None, hashlib.sha256(words.encode()).hexdigest()}:
        raise Problem(path, "is damaged: its recipe does not have the checksum written with it", remedy="make it again")
    header = cast(dict[str, Any], json.loads(words))
    if not header["format"] >= 1:
        raise ValueError(f"format {header['format']}")
    if header["format"] > FORMAT:
        newer = header.get("versions", {}).get("fxqat", "a newer version")
        raise Problem(
            path,
            f"was written by fxqat {newer} in format {header['format']}",
            expected=f"format {FORMAT}",
            remedy="update fxqat",
        )
    if header["tensors_sha256"] != _digest(tensors):
        what = "is damaged: its tensors do not have the checksum written with them"
        raise Problem(path, what, remedy="make it again")
    return header


def _recipe(told: Mapping[str, Any], diffs: list[str]) -> Recipe:
    passes = tuple(PassRecord(**done, diff=str(diff)) for done, diff in zip(told["passes"], diffs, strict=True))
    patterns = tuple(RuleFile(**{**file, "lists": tuple(file["lists"])}) for file in told["patterns"])
    recipe = Recipe(**{**told, "passes": passes, "patterns": patterns})
    words = ("stage", "policy_name", "policy_text", "target")
    if not all(isinstance(getattr(recipe, name), str) for name in words):
        raise ValueError("a number stands where a word should")
    return recipe


def _packed(graphs: Mapping[str, Any]) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(json.dumps(graphs).encode(), 6)), dtype=torch.uint8)


def _unpacked(tensor: Tensor) -> Any:
    if tensor.dtype != torch.uint8:
        raise ValueError("its graphs are no bytes")
    unpacking = zlib.decompressobj()
    words = unpacking.decompress(tensor.numpy().tobytes(), _MOST_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError("its graphs are too large")
    return json.loads(words)


def _damaged(path: str | Path, error: Exception) -> Problem:
    return Problem(path, f"is damaged: its recipe makes no sense ({error})", remedy="make it again")


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
