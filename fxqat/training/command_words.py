"""Which options of training have a flag of their own, and a record of a training as flags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fxqat.models.image_size import ImageSize

VALUES = ("epochs", "batch", "imgsz", "distill", "penalty", "device", "seed")
SWITCHES = ("lsq", "unlabelled")


def restated(record: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The words after ``fxqat train X --data D`` that train as ``record`` says.

    Args:
        record: the summary of a TrainingConfig.
        usual: that of the one which X has without a word (``configured(X, "", {})``): its policy may say something.
    """
    words: list[str] = []
    for name, value in _chosen(record, usual).items():
        value = str(ImageSize.of(value)) if name == "imgsz" else value
        text = value if isinstance(value, str) else json.dumps(value)
        if name in SWITCHES:
            words.append(f"--{name}" if value else f"--no-{name}")
        elif name in VALUES:
            words += [f"--{name}", text]
        else:
            words += ["--set", f"{name}={text}"]
    return words


def _chosen(record: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as usual, by the name it is given by; epochs and seed always."""
    from fxqat.training.config import OWN

    record = {**usual, **record, "loss": {**usual["loss"], **record["loss"]}}  # of an older version it may lack some
    own = {name: record[name] for name in OWN if name != "data" and record[name] != usual[name]}
    options = {name: value for name, value in record["options"].items() if value != usual["options"].get(name)}
    return {"epochs": record["epochs"], "seed": record["seed"]} | own | _loss(record["loss"], usual["loss"]) | options


def _loss(record: Mapping[str, float], usual: Mapping[str, float]) -> dict[str, Any]:
    told: dict[str, Any] = {name: record[name] for name in usual if record[name] != usual[name]}
    if told.get("task") not in (0.0, 1.0):
        return told
    switch = {"unlabelled": not told.pop("task")}
    told["distill"] = record["distill"]  # what it is without a word depends on the policy's words
    if (usual["distill"], record["distill"]) == (0.0, 1.0):
        del told["distill"]  # the switch says it
    return switch | told
