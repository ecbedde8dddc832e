"""The metadata of an exported file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.passes.lower import is_integer
from fxqat.version import VERSION


def metadata(model: Detector, size: ImageSize, batch: int, *, dynamic: bool) -> Mapping[str, Any]:
    """The entries: what Ultralytics' loader reads, and what the file was made of."""
    int8 = is_integer(model.gm)
    return {
        "description": f"{Path(model.source.name).stem} {'INT8' if int8 else 'FP32'} by fxqat",
        "author": "fxqat",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": VERSION,
        "license": "AGPL-3.0",
        "stride": model.stride,
        "task": model.source.task,
        "batch": batch,
        "imgsz": list(size.shape),
        "names": dict(model.names),
        "args": {"batch": batch, "dynamic": dynamic, "int8": int8},
        "channels": 3,
        **model.source.family.metadata(model.source.head_spec),
        "policy": model.recipe.policy_name,
        "target": model.recipe.target,
        "source_sha256": model.source.sha256,
    }
