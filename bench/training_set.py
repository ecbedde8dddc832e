"""Ultralytics' training images, augmented as options say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DEFAULT_CFG_DICT

COLOURS = ("hsv_h", "hsv_s", "hsv_v")
PLACES = ("scale", "translate")
AUGMENTATION = ("mosaic", *PLACES, *COLOURS, "fliplr")


def as_ultralytics(*names: str) -> dict[str, Any]:
    """Options of augmentation with Ultralytics' own values."""
    return {name: DEFAULT_CFG_DICT[name] for name in names}


def training_set(data: str, recipe: Mapping[str, Any], *, imgsz: int, batch: int) -> Any:
    """The data set of ``data``'s train split, as a trainer with the options ``recipe`` makes it; each item has ``img``,
    (3, imgsz, imgsz) uint8, and its labels."""
    settings = get_cfg(overrides={**recipe, "imgsz": imgsz, "task": "detect", "batch": batch})
    found = check_det_dataset(data)
    return build_yolo_dataset(settings, found["train"], batch, found, mode="train", rect=False, stride=32)
