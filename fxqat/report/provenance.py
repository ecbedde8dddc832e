"""Where a model comes from, what made it and what it was looked at with: enough to do all of it again."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fxqat.checkpoint.fxqat_format import versions
from fxqat.models.detector import Detector
from fxqat.models.families import DEFAULT
from fxqat.models.image_size import ImageSize
from fxqat.training.command_words import restated
from fxqat.version import library_versions


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Pairs of words, and the commands in order."""

    model: Mapping[str, str]
    environment: Mapping[str, str]
    commands: tuple[str, ...]


def provenance(model: Detector, path: Path, command: str, file: Path | None) -> Provenance:
    """What is known of the model in ``path``; file names only, no folders and no host."""
    return Provenance(
        model=_provenance(model),
        environment=_environment(),
        commands=(*commands(model, path, file), command),
    )


def commands(model: Detector, path: Path, file: Path | None) -> tuple[str, ...]:
    """What the recipe says was done, as the commands that do it."""
    recipe, source = model.recipe, Path(model.source.name).name
    plain = f"{Path(source).stem}.fxqat"
    done: list[list[str]] = [["prepare", source, "--policy", Path(recipe.policy_name).name, "-o", plain]]
    if how := recipe.calibration:
        shown = [
            "--data",
            how.get("data", "DATA"),
            "--images",
            how.get("images", "?"),
            "--imgsz",
            ImageSize.of(how.get("imgsz", 640)),
        ]
        method = ["--method", how["method"]] if how.get("method") else []
        ptq = path.name if not recipe.training else f"{Path(source).stem}_ptq.fxqat"
        done.append(["calibrate", plain, *map(str, shown), *method, "-o", ptq])
        if recipe.training:
            from fxqat.training.config import configured  # Ultralytics, which no other model needs

            how = recipe.training["config"]
            usual = configured(model.with_graph(model.gm, training={}), "", {}).summary()
            done.append(["train", ptq, "--data", how["data"], *restated(how, usual), "-o", path.name])
    if file:
        size = str(model.imgsz)
        done.append(["export", path.name, "--imgsz", size, "-o", file.name])
    return tuple(shlex.join(["fxqat", *words]) for words in done)


def _provenance(model: Detector) -> dict[str, str]:
    recipe, source = model.recipe, model.source
    how = recipe.calibration
    known = {
        "Float model": Path(source.name).name,
        "SHA-256": source.sha256 or "none: an architecture with random weights",
        "Classes": str(len(source.names)),
        "Policy": recipe.policy_name,
        "Target": recipe.target,
        "Calibrated on": _calibrated(how),
        "Trained": _trained(recipe.training),
        "Rules of your own": ", ".join(file.name for file in recipe.patterns) or "none",
    }
    return known


def _calibrated(how: Mapping[str, Any]) -> str:
    return f"{how['images']} images of {how['data']}, {ImageSize.of(how['imgsz'])} px" if how else "not calibrated"


def _trained(record: Mapping[str, Any]) -> str:
    if not record:
        return "no"
    how, measured = record["config"], record["map5095"]
    epoch = record.get("epoch", record["best_epoch"])
    trained = f"{how['epochs']} epochs on {how['data']}, {ImageSize.of(how['imgsz'])} px; this is epoch {epoch}"
    metric = record.get("metric", DEFAULT.metric.title)  # which older versions did not tell
    return f"{trained}: {metric} {measured[epoch]:.4f}, {measured[0]:.4f} before training"


def _environment() -> dict[str, str]:
    found = {**library_versions(), **versions()}  # torch tells which build it is
    system = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores"
    return {**found, "system": system}
