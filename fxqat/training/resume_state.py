"""The state of a training in one file: safetensors with JSON in the header. No pickle, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, optim

from fxqat.checkpoint.tensors import write_tensors
from fxqat.errors import Problem

FORMAT = 1
_KEY = "fxqat-training"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A training after a whole number of epochs. Random numbers need no state: each epoch's follow from the seed.

    Attributes:
        start: digest of the tensors that the training began with.
        config: how it is trained.
        history: one row an epoch, epoch 0 first.
        best: epoch of the highest validated mAP.
        model, average, kept: tensors of the trained model, of the moving average, and of the average at ``best``.
        optimizer: its state, as ``pack_optimizer`` gives it.
        words: whatever else is small: updates of the average, Ultralytics' early stopping.
    """

    start: str
    config: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    best: int
    model: Tensors
    average: Tensors
    kept: Tensors
    optimizer: tuple[Tensors, Mapping[str, Any]]
    words: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs_done(self) -> int:
        """Epochs trained."""
        return len(self.history) - 1


def write(path: Path, state: State) -> None:
    """Write atomically.

    Raises:
        Problem: the path cannot be written.
    """
    groups = {"model": state.model, "average": state.average, "kept": state.kept, "optimizer": state.optimizer[0]}
    tensors = {f"{group}/{name}": _plain(tensor) for group, found in groups.items() for name, tensor in found.items()}
    header = {
        "format": FORMAT,
        "start": state.start,
        "config": state.config,
        "history": state.history,
        "best": state.best,
        "optimizer": state.optimizer[1],
        "words": state.words,
    }
    write_tensors(path, tensors, {_KEY: json.dumps(header)})


def read(path: Path) -> State:
    """Read a state.

    Raises:
        Problem: missing, damaged, of another kind, or written by a newer fxqat.
    """
    if not path.is_file():
        raise Problem(path, "no such file: no epoch was finished there", remedy="train without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise Problem(path, f"is damaged ({error})", remedy="train without --resume") from error
    if text is None:
        raise Problem(path, "is a safetensors file of another program", expected="the state of a training")
    header = json.loads(text)
    if header["format"] > FORMAT:
        raise Problem(path, f"is of format {header['format']}", expected=f"format {FORMAT}", remedy="update fxqat")
    return State(
        start=header["start"],
        config=header["config"],
        history=header["history"],
        best=header["best"],
        words=header["words"],
        model=_group(tensors, "model"),
        average=_group(tensors, "average"),
        kept=_group(tensors, "kept"),
        optimizer=(_group(tensors, "optimizer"), header["optimizer"]),
    )


def pack_optimizer(optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors, by ``PARAMETER/NAME``, and plain values."""
    whole = optimizer.state_dict()
    pairs = [(f"{index}/{name}", value) for index, found in whole["state"].items() for name, value in found.items()]
    tensors = {key: value for key, value in pairs if isinstance(value, Tensor)}
    plain = {key: value for key, value in pairs if not isinstance(value, Tensor)}
    return tensors, {"values": plain, "groups": whole["param_groups"]}


def unpack_optimizer(optimizer: optim.Optimizer, packed: tuple[Tensors, Mapping[str, Any]]) -> None:
    """Give ``optimizer`` the state that ``pack_optimizer`` gave of one with the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**packed[0], **packed[1]["values"]}.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": packed[1]["groups"]})


def digest(tensors: Tensors) -> str:
    """SHA-256 of tensors and their names."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = _plain(tensors[name])
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def plain_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as they come back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def snapshot(tensors: Tensors) -> dict[str, Tensor]:
    """A copy on the CPU that later training leaves alone."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _plain(tensor: Tensor) -> Tensor:
    # a copy: safetensors refuses tensors that share memory, as those of the best epoch may with the average's
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _group(tensors: Tensors, group: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{group}/")}
