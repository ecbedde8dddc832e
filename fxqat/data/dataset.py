"""Where a data set's images are: Ultralytics' data set YAMLs, image folders, list files and single images."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fxqat.data.batches import CHANNELS
from fxqat.errors import Problem
from fxqat.models import offline

SUFFIXES = frozenset({"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"})
YAML_SUFFIXES = frozenset({".yaml", ".yml"})
SPLITS = ("train", "val", "test", "minival")
# The keys that Ultralytics checks the types of, without those of other tasks.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "path": (str,),
    **dict.fromkeys(SPLITS, (str, list)),
    "names": (list, dict),
}
_NOT_YAML = re.compile(r"[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set YAML that was read: its file, its keys and its classes.

    ``named`` is False where the YAML gives only ``nc`` and the names are made up, as Ultralytics does.
    """

    file: Path
    keys: dict[str, Any]
    names: dict[int, str]
    named: bool

    def images(self, split: str) -> list[Path]:
        """Paths of a split's images, sorted as Ultralytics sorts them.

        Raises:
            Problem: the split is not in the YAML, or its folder or list file is missing or names no image.
        """
        entry = self.keys.get(split)
        if not entry:
            has = ", ".join(name for name in SPLITS if self.keys.get(name)) or "none"
            raise Problem(self.file, f"has no split '{split}'", expected=f"one of its splits: {has}")
        entries = entry if isinstance(entry, list) else [entry]
        found = [path for item in entries for path in images_at(self._resolve(str(item), split))]
        return sorted(found, key=str)

    def _resolve(self, entry: str, split: str) -> Path:
        """The split's folder or file, under the first root that has it."""
        tried = [(root / part).resolve() for root in self._roots() for part in _spellings(entry)]
        if found := next((path for path in tried if path.exists()), None):
            return found
        raise Problem(self.file, f"split '{split}' is missing: no {tried[-1]}", remedy="correct 'path' in the YAML")

    def _roots(self) -> list[Path]:
        """Ultralytics' own candidates in its order, then the YAML's folder."""
        stated, beside = self.keys.get("path"), self.file.parent
        if not stated:
            return [beside]
        root = Path(str(stated))
        return [root] if root.is_absolute() else [root, _datasets_folder() / root, beside / root]


def is_yaml(path: Path) -> bool:
    """Whether ``path`` is a data set YAML by its name."""
    return path.suffix.lower() in YAML_SUFFIXES


def find(data: str | Path) -> Path:
    """The file or folder that ``data`` means: a path, or the name of a data set that Ultralytics ships.

    Raises:
        Problem: neither exists; the nearest shipped name is suggested.
    """
    path = Path(data)
    if path.exists():
        return path.resolve()
    shipped = {file.name: file for file in (_ultralytics_root() / "cfg" / "datasets").glob("*.yaml")}
    name = path.name if is_yaml(path) else f"{path.name}.yaml"
    if len(path.parts) == 1 and name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1) if len(path.parts) == 1 else []
    hint = f"did you mean {near[0]}?" if near else "give a data set YAML, an image folder, a list file or an image"
    raise Problem(data, "no such data set", remedy=hint)


def read(file: Path) -> DataSet:
    """Read a data set YAML, downloading a data set that Ultralytics ships and that is not here yet.

    Raises:
        Problem: the file is no YAML mapping, its classes are malformed, or its images are not RGB.
    """
    keys = _parse(file)
    _check_types(file, keys)
    if "val" not in keys and "validation" in keys:
        keys = {**keys, "val": keys["validation"]}
    data_set = DataSet(file=file, keys=keys, names=_names(file, keys), named=keys.get("names") is not None)
    if file.is_relative_to(_ultralytics_root()):
        _download_if_missing(data_set)
    return data_set


def images_at(place: Path) -> list[Path]:
    """Images of one folder (searched to the bottom), list file or image file; sorted by path.

    Raises:
        Problem: there is none.
    """
    if place.is_dir():
        found = [Path(name) for name in glob.glob(f"{glob.escape(str(place))}/**/*.*", recursive=True)]
    elif place.suffix[1:].lower() in SUFFIXES:
        found = [place]
    else:
        found = _listed(place)
    images = sorted((path for path in found if path.suffix[1:].lower() in SUFFIXES), key=str)
    if not images:
        raise Problem(place, "holds no image", expected=f"files ending in {', '.join(sorted(SUFFIXES))}")
    return images


def _listed(file: Path) -> list[Path]:
    """One path a line, as Ultralytics reads it; other relative paths may also be relative to the list's folder.

    Raises:
        Problem: it is no text, or a line is no path of an image (Ultralytics would leave it out without a word).
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(file, "is not a list of image paths", expected="UTF-8 text, one path a line") from error
    for number, line in enumerate(lines, start=1):
        if line and Path(line).suffix[1:].lower() not in SUFFIXES:
            remedy = "put its class into a label file" if Path(line.split()[0]).suffix[1:].lower() in SUFFIXES else ""
            raise Problem(f"{file}:{number}", f"{line!r} is no image", expected="one path a line", remedy=remedy)
    paths = [file.parent / line[2:] if line.startswith("./") else Path(line) for line in lines if line]
    return [path if path.exists() else file.parent / path for path in paths]


def _spellings(entry: str) -> list[str]:
    """Roboflow exports say ``../valid/images`` for ``valid/images``; Ultralytics accepts both."""
    return [entry, entry.removeprefix("../")] if entry.startswith("../") else [entry]


def _parse(file: Path) -> dict[str, Any]:
    """The keys; bytes and characters that are none of YAML's are left out, as Ultralytics does."""
    try:
        keys = yaml.safe_load(_NOT_YAML.sub("", file.read_text(encoding="utf-8-sig", errors="ignore")))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Problem(f"{file}:{line}", f"is not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:  # a date that is none, lists without end
        raise Problem(file, f"cannot be read as YAML: {error}") from error
    if not isinstance(keys, dict):
        raise Problem(file, "is not a data set YAML", expected="keys such as train, val and names")
    return keys


def _check_types(file: Path, keys: dict[str, Any]) -> None:
    for key, kinds in _TYPES.items():
        value = keys.get(key)
        if value is not None and not isinstance(value, kinds):
            kind = " or ".join(_WORDS[one] for one in kinds)
            raise Problem(file, f"'{key}' is {value!r}", expected=kind)
    if keys.get("channels", CHANNELS) != CHANNELS:
        raise Problem(
            file,
            f"'channels' is {keys['channels']!r}",
            expected=f"{CHANNELS} (RGB)",
            remedy="leave it out to have grey images read as colour images",
        )


_WORDS: Mapping[type, str] = {str: "a path", list: "a list", dict: "a mapping of numbers to names"}


def _count(file: Path, keys: dict[str, Any]) -> int | None:
    """``nc``, where it is there; as Ultralytics does, 3.0 and "3" are taken for 3."""
    if keys.get("nc") is None:
        return None
    try:
        count = float(keys["nc"])
    except (TypeError, ValueError):
        count = 0.0
    if count < 1 or count != int(count):
        raise Problem(file, f"'nc' is {keys['nc']!r}", expected="the number of classes")
    return int(count)


def _names(file: Path, keys: dict[str, Any]) -> dict[int, str]:
    """Class names by index, as Ultralytics numbers them."""
    names, count = keys.get("names"), _count(file, keys)
    if names is None and count:
        return {index: f"class_{index}" for index in range(count)}
    if names is not None and count is not None and len(names) != count:
        raise Problem(file, f"'nc' says {count} classes, 'names' has {len(names)}", remedy="correct one of them")
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    try:
        classes = {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError) as error:
        raise Problem(file, f"'names' has an index that is no number: {error}") from error
    if not classes or set(classes) != set(range(len(classes))):
        raise Problem(file, "'names' is not a list of classes", expected="names numbered from 0, without gaps")
    return classes


def _download_if_missing(data_set: DataSet) -> None:
    from ultralytics.data.utils import check_det_dataset

    try:
        data_set.images("val")
    except Problem as problem:
        offline.provide_fonts()
        try:
            check_det_dataset(str(data_set.file))
        except Exception as error:  # whatever a download can raise, the user's problem is the missing data set
            raise Problem(data_set.file.name, f"is not here and could not be downloaded: {error}") from problem


def _ultralytics_root() -> Path:
    from ultralytics.utils import ROOT

    return Path(ROOT)


def _datasets_folder() -> Path:
    from ultralytics.utils import DATASETS_DIR

    return Path(DATASETS_DIR)
