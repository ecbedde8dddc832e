"""Rows of a long measurement, written as they are found and taken up again: a file named by the content of what it
measures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import fx

from fxqat.errors import Problem
from fxqat.files import make_folder, sha256, write_text
from fxqat.graph.text import text


class Ledger:
    """Rows by key in ``folder/NAME-DIGEST.json``, the digest that of ``what``.

    Args:
        folder: made where it is missing; None keeps rows in memory alone.
        name: of the measurement.
        what: everything that the rows depend on, ready for JSON.

    Raises:
        Problem: the folder cannot be made, or the file is damaged.
    """

    def __init__(self, folder: str | Path | None, name: str, what: dict[str, Any]) -> None:
        self.what, self.rows = what, dict[str, Any]()
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        self.path = Path(folder) / f"{name}-{digest[:16]}.json" if folder is not None else None
        if self.path is not None:
            self._open(self.path)

    def _open(self, path: Path) -> None:
        make_folder(path.parent, "--work")
        try:
            if path.is_file():
                self.rows = dict(json.loads(path.read_text())["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise Problem(path, "is damaged", expected="what fxqat wrote there", remedy="delete it") from error

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> Any:
        return self.rows[key]

    def add(self, key: str, row: Any) -> None:
        """Keep a row, on disk before this returns."""
        self.rows[key] = row
        if self.path is not None:
            write_text(self.path, json.dumps({"what": self.what, "rows": self.rows}) + "\n")


def fingerprint(gm: fx.GraphModule) -> str:
    """SHA-256 of a graph's text and of all the numbers it computes with: weights, batch norms, ranges."""
    digest = hashlib.sha256(text(gm.graph).encode())
    followed = [
        f"{name}.weight_fake_quant."
        for name, layer in gm.named_modules()
        if (fake := getattr(layer, "weight_fake_quant", None)) is not None and fake.spec.scale == "fixed"
    ]
    # switches, what observers saw, and scales that follow the weights at each forward decide nothing
    passing = (*followed, "activation_post_process", "observer_enabled", "fake_quant_enabled")
    for name, tensor in sorted(gm.state_dict().items()):
        if not any(part in name for part in passing):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def content(paths: Iterable[Path]) -> str:
    """SHA-256 of files' contents, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(sha256(path).encode())
    return digest.hexdigest()
