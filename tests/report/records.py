"""A record of ``fxqat drift``, with numbers that are easy to find again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fxqat.files import sha256

STAGES = ("float", "fused", "fake-quant", "reference", "ONNX Runtime")


def record_of(model: Path) -> dict[str, Any]:
    """Five stages that lose 0.1 points each, three classes, two files timed under two settings, three measured."""
    stages = [_stage(name, index) for index, name in enumerate(STAGES)]
    latency = [
        {
            "path": f"{kind}_batch{batch}.onnx",
            "threads": threads,
            "shape": [batch, 3, 320, 320],
            **_times(kind, threads),
        }
        for batch, threads in ((1, 1), (1, 2), (4, 2))
        for kind in ("float", "int8")
    ]
    memory = [{"name": name, "file": 3.5, "peak": 321.0} for name in ("signs.pt", model.name, "float.onnx")]
    return {
        "model": model.name,
        "sha256": sha256(model),
        "data": "data.yaml",
        "threshold": 0.25,
        "stages": stages,
        "by_class": [["stop", 12, 0.61, -2.5], ["<yield>", 7, 0.5, -0.5], ["speed", 9, 0.7, 1.25]],
        "memory": memory,
        "latency": latency,
    }


def _stage(name: str, index: int) -> dict[str, Any]:
    points = -0.1 * index
    drift = {"points": points, "low": points - 0.5, "high": points + 0.3, "level": 0.95} if index else None
    recall = {"recall": 0.8 - index / 100, "precision": 0.9, "points": None, "low": None, "high": None}
    if index:
        recall |= {"points": -1.0 * index, "low": -2.0 * index, "high": 0.5}
    shift = {"predictions": 90, "mean": -0.004, "low": -0.031, "high": 0.02, "lost": 0.0123} if index else None
    return {
        "stage": name,
        "map5095": 0.36 + points / 100,
        "images": 48,
        "drift": drift,
        "recall": recall,
        "shift": shift,
    }


def _times(kind: str, threads: int) -> dict[str, float]:
    median = 40.0 / threads / (2.0 if kind == "int8" else 1.0)
    speed = 2.0 if kind == "int8" else 1.0
    return {"p10": median - 1, "median": median, "p90": median + 3, "speed": speed, "speed_low": 1.9, "speed_high": 2.1}
