"""Which options of training have a flag of their own, and a record of a training as flags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

VALUES = ("epochs", "batch", "imgsz", "distill", "penalty", "device", "seed")
SWITCHES = ("lsq", "unlabelled")


def restated(record: Mapping[str, Any]) -> list[str]:
    """The words after ``fxqat train X --data D`` that train as ``record``, the summary of a TrainingConfig, says."""
    words: list[str] = []
    for name, value in _chosen(record).items():
        text = value if isinstance(value, str) else json.dumps(value)
        if name in SWITCHES:
            words.append(f"--{name}")
        elif name in VALUES:
            words += [f"--{name}", text]
        else:
            words += ["--set", f"{name}={text}"]
    return words


def _chosen(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as usual, by the name it is given by; epochs and seed always."""
    from fxqat.training.config import LOSS, OWN, TrainingConfig

    usual = TrainingConfig(data="").summary()
    record = {**usual, **record, "loss": {**usual["loss"], **record["loss"]}}  # of an older version it may lack some
    loss = {name: record["loss"][name] for name in LOSS if record["loss"][name] != usual["loss"][name]}
    if {"task": 0.0, "distill": 1.0}.items() <= loss.items():
        loss = {"unlabelled": True} | {name: loss[name] for name in loss if name not in ("task", "distill")}
    own = {name: record[name] for name in OWN if name != "data" and record[name] != usual[name]}
    return {"epochs": record["epochs"], "seed": record["seed"]} | own | loss | dict(record["options"])
