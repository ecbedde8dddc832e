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
from fxqat.checkpoint.network import policy_of
from fxqat.models.detector import Detector, Recipe
from fxqat.models.families import DEFAULT
from fxqat.models.image_size import ImageSize
from fxqat.passes.corrections import registry
from fxqat.policy import Policy
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
    done: list[list[str]] = [
        ["prepare", source, "--policy", Path(recipe.policy_name).name, *_target(recipe), "-o", plain]
    ]
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
        done.append(["calibrate", plain, *map(str, shown), *method, *_correct(recipe), "-o", ptq])
        if recipe.training:
            from fxqat.training.config import configured  # Ultralytics, which no other model needs

            how = recipe.training["config"]
            usual = configured(model.with_graph(model.gm, training={}), "", {}).summary()
            done.append(["train", ptq, "--data", how["data"], *restated(how, usual), "-o", path.name])
    if file:
        size = str(model.imgsz)
        done.append(["export", path.name, "--imgsz", size, "-o", file.name])
    return tuple(shlex.join(["fxqat", *words]) for words in done)


def _target(recipe: Recipe) -> list[str]:
    """``--target`` where it was prepared for another one than its policy's."""
    retargeted = recipe.calibration.get("retargeted", ())
    target = retargeted[0]["from"] if retargeted else recipe.target
    own = Policy.parse(recipe.policy_text, recipe.policy_name, recorded=True).target.name
    return [] if target == own else ["--target", target]


def _correct(recipe: Recipe) -> list[str]:
    """``--correct`` where other corrections ran than the policy's."""
    ran = [(one["name"], one["options"]) for one in recipe.calibration.get("corrections", ())]
    if ran == [(one.name, registry.options(one)) for one in registry.corrections(policy_of(recipe))]:
        return []
    return ["--correct", ",".join(name for name, _ in ran) or "none"]


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
