"""Finding the rule and policy files that come with fxqat, from any directory and however it was installed."""

from __future__ import annotations

from pathlib import Path

from fxqat.errors import Problem
from fxqat.graph.site import nearest

_PACKAGE = Path(__file__).parents[1]
# A wheel carries the folders inside the package; a checkout, also installed in place, has them beside it.
_ROOTS = (_PACKAGE / "_shipped", _PACKAGE.parent)
_SUFFIX = {"patterns": ".py", "policies": ".yaml"}
DEFAULT_POLICY = "critical"
# Of policies, from when YOLOv8 was the only family; each is a file that extends the new one, and stays.
OLD_NAMES = frozenset({"yolov8_critical", "yolov8_w8a8", "yolov8_w4a8"})


def find(kind: str, name: str | Path) -> Path:
    """The file of ``kind`` ("patterns" or "policies") called ``name``: a path that exists, else a shipped file, with or
    without suffix.

    Raises:
        Problem: there is none.
    """
    if is_file(Path(name)):
        return Path(name)
    for root in _ROOTS:
        for candidate in (root / kind / Path(name).name, root / kind / f"{Path(name).name}{_SUFFIX[kind]}"):
            if is_file(candidate):
                return candidate
    names = shipped(kind)
    raise Problem(
        name, "no such file", expected=f"a path or one of: {', '.join(names)}", remedy=nearest(Path(name).stem, names)
    )


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that is too long is none's."""
    try:
        return path.is_file()
    except OSError:
        return False


def shipped(kind: str) -> list[str]:
    """Names of the shipped files of ``kind``, without suffix and without old names."""
    root = next(root for root in _ROOTS if (root / kind).is_dir())
    return sorted({file.stem for file in (root / kind).glob(f"*{_SUFFIX[kind]}")} - OLD_NAMES)
