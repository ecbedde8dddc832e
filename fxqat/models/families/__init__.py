"""Model families, one a file. A new one is a file here and an entry in FAMILIES; nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fxqat.errors import Problem
from fxqat.models.families.classify import CLASSIFY
from fxqat.models.families.detect import DETECT
from fxqat.models.families.obb import OBB
from fxqat.models.families.pose import POSE
from fxqat.models.families.segment import SEGMENT
from fxqat.models.family import Family

FAMILIES: Mapping[str, Family] = {one.task: one for one in (DETECT, SEGMENT, POSE, OBB, CLASSIFY)}

DEFAULT = DETECT  # what a file that does not say its task is taken for

# Heads that no integer graph is made of, and why; by the name of their class.
REFUSED: Mapping[str, str] = {
    "RTDETRDecoder": "a transformer decoder whose anchors depend on the data",
    "WorldDetect": "it compares with texts that are given at run time",
    "Depth": "it predicts a map of distances",
    "SemanticSegment": "it predicts a map of classes",
    "YOLOEDetect": "it compares with prompts that are given at run time",
    "YOLOESegment": "it compares with prompts that are given at run time",
    "YOLOESegment26": "it compares with prompts that are given at run time",
}


def family_of(head: Any, where: str) -> Family:
    """The family that takes ``head``, a module of Ultralytics'.

    Raises:
        Problem: no family does.
    """
    return family_named(type(head).__name__, where)


def family_named(kind: str, where: str) -> Family:
    """The family that takes heads of Ultralytics' class ``kind``.

    Raises:
        Problem: no family does.
    """
    for family in FAMILIES.values():
        if kind in family.heads:
            return family
    known = ", ".join(name for family in FAMILIES.values() for name in family.heads)
    why = f" ({REFUSED[kind]})" if kind in REFUSED else ""
    raise Problem(where, f"its head is {kind}{why}", expected=f"one of: {known}", remedy="use another model")


def adapt(head: nn.Module, where: str) -> nn.Module:
    """The adapter of ``head``, a module of Ultralytics'; ``where`` stands in errors.

    Raises:
        Problem: a head without an adapter.
    """
    family = family_of(head, where)
    return family.heads[type(head).__name__](head, family.spec(head))
