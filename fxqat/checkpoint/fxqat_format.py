"""The .fxqat file: tensors as safetensors, the recipe as JSON in its header. No pickle, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fxqat.errors import Problem
from fxqat.files import replacing
from fxqat.models.detector import Recipe, Source

FORMAT = 1
_KEY = "fxqat"
_CHECKSUM = "sha256"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a .fxqat file holds.

    Attributes:
        tensors: the state of the graph.
        literals: the numbers that stand in an INT8 graph's text, by site: (scale, zero point).
        text_sha256: of the graph's text; loading builds the graph again and compares.
    """

    source: Source
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    text_sha256: str
    literals: Mapping[str, tuple[float, int]] = field(default_factory=dict)


def write(path: str | Path, content: Content) -> None:
    """Write atomically.

    Raises:
        Problem: the path cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in content.tensors.items()}
    header = {
        "format": FORMAT,
        "source": {**asdict(content.source), "names": {str(k): v for k, v in content.source.names.items()}},
        "recipe": asdict(content.recipe),
        "literals": content.literals,
        "text_sha256": content.text_sha256,
        "tensors_sha256": _digest(tensors),
        "versions": versions(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    words = json.dumps(header)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: words, _CHECKSUM: hashlib.sha256(words.encode()).hexdigest()})


def read(path: str | Path) -> Content:
    """Read and check a file.

    Raises:
        Problem: missing, empty, damaged, truncated, of another kind, or written by a newer fxqat.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .fxqat file", remedy="make one with fxqat prepare")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise Problem(
            path, f"is damaged or truncated ({error})", expected="a .fxqat file", remedy="make it again"
        ) from error
    if _KEY not in metadata:
        raise Problem(path, "is a safetensors file of another program", expected="a .fxqat file")
    try:
        return _content(path, _header(path, metadata), tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Problem(path, f"is damaged: its recipe makes no sense ({error})", remedy="make it again") from error


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    words = metadata[_KEY]
    if metadata.get(_CHECKSUM) not in {None, hashlib.sha256(words.encode()).hexdigest()}:
        raise Problem(path, "is damaged: its recipe does not have the checksum written with it", remedy="make it again")
    return cast(dict[str, Any], json.loads(words))


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import ultralytics

    import fxqat

    return {
        "fxqat": fxqat.__version__,
        "torch": str(torch.__version__),
        "ultralytics": ultralytics.__version__,
        "python": platform.python_version(),
    }


def _content(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Content:
    if header.get("format", 0) > FORMAT:
        newer = header.get("versions", {}).get("fxqat", "a newer version")
        raise Problem(
            path,
            f"was written by fxqat {newer} in format {header['format']}",
            expected=f"format {FORMAT}",
            remedy="update fxqat",
        )
    if header["tensors_sha256"] != _digest(tensors):
        raise Problem(
            path, "is damaged: its tensors do not have the checksum written with them", remedy="make it again"
        )
    source, recipe = header["source"], header["recipe"]
    names = {int(key): value for key, value in source["names"].items()}
    channels = {path: (inputs, outputs) for path, (inputs, outputs) in source.get("channels", {}).items()}
    patterns = tuple((name, digest) for name, digest in recipe["patterns"])
    return Content(
        source=Source(**{**source, "names": names, "stride": tuple(source["stride"]), "channels": channels}),
        recipe=Recipe(**{**recipe, "patterns": patterns, "passes": tuple(recipe["passes"])}),
        tensors=tensors,
        literals={site: (scale, zero) for site, (scale, zero) in header["literals"].items()},
        text_sha256=header["text_sha256"],
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
