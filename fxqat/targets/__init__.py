"""Targets: one file for each runtime, found by name."""

from __future__ import annotations

from fxqat.targets.litert import LITERT
from fxqat.targets.openvino import OPENVINO
from fxqat.targets.operations import Place, register_operation
from fxqat.targets.ort_arm import ORT_ARM
from fxqat.targets.ort_x86 import ORT_CPU, ORT_CPU_AVX2, ORT_CPU_VNNI
from fxqat.targets.target import Target
from fxqat.targets.tensorrt import TENSORRT

# What a policy or --target may name, and what only files made earlier still name.
TARGETS: dict[str, Target] = {one.name: one for one in (ORT_CPU, ORT_CPU_VNNI, ORT_ARM, LITERT, OPENVINO, TENSORRT)}
RETIRED: dict[str, Target] = {one.name: one for one in (ORT_CPU_AVX2,)}


def target_of(name: str) -> Target | None:
    """The target that a model was prepared for, retired ones included; None for a name that is none."""
    return TARGETS.get(name) or RETIRED.get(name)


def suffix_of(name: str) -> str:
    """What the name of a file for the target called ``name`` ends in; ``.onnx`` for a name that is none."""
    found = target_of(name)
    return ".onnx" if found is None else found.suffix


def register_target(target: Target) -> None:
    """Let policies and ``--target`` name ``target``.

    Rewriting rules of its own stand under its name in ``QUANTIZE`` of a rule file (``--patterns``).

    Raises:
        ValueError: another target has the name.
    """
    if TARGETS.setdefault(target.name, target) is not target:
        raise ValueError(f"target: {target.name!r} is taken, expected a name that is not one of {', '.join(TARGETS)}")


__all__ = [
    "ORT_CPU",
    "RETIRED",
    "TARGETS",
    "Place",
    "Target",
    "register_operation",
    "register_target",
    "suffix_of",
    "target_of",
]
