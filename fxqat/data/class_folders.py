"""Data sets of classifiers: a folder for each split, in it a folder of images for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fxqat.data import dataset
from fxqat.errors import Problem


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """A folder of classified images.

    Attributes:
        file: the folder.
        names: of the classes' folders, by the index that the model gives the class.
    """

    file: Path
    names: Mapping[int, str]

    def folder(self, split: str) -> Path:
        """The folder of a split; the whole where no split has one.

        Raises:
            Problem: other splits have one.
        """
        splits = splits_in(self.file)
        if splits and split not in splits:
            raise Problem(self.file, f"has no folder '{split}'", expected=f"one of its splits: {', '.join(splits)}")
        return self.file / split if splits else self.file

    def images(self, split: str) -> list[Path]:
        """Paths of a split's images, sorted; those outside of class folders are left out, as Ultralytics does.

        Raises:
            Problem: it has no such folder, or no image.
        """
        root = self.folder(split)
        found = [path for path in dataset.images_at(root) if path.parent != root]
        if not found:
            raise Problem(root, "holds no image in a folder", expected="a folder of images for each class")
        return found

    def classes(self, split: str) -> dict[Path, int]:
        """The class of each of a split's images, by path, in order.

        Raises:
            Problem: as ``images``.
        """
        root, known = self.folder(split), {name: index for index, name in self.names.items()}
        return {path: known[path.relative_to(root).parts[0]] for path in self.images(split)}


def read(place: Path, model: str, names: Mapping[int, str]) -> ClassFolders:
    """The data set in the folder ``place``.

    Args:
        place: the folder.
        model: named in errors.
        names: the model's class names by index. Where they are placeholders, folders are numbered in the order of their
            names, as Ultralytics does.

    Raises:
        Problem: it is no folder, or a folder in it is no class of the model.
    """
    if not place.is_dir():
        raise Problem(place, "is no folder", expected="a folder of images for each class")
    roots = [place / split for split in splits_in(place)] or [place]
    found = sorted({one.name for root in roots for one in root.iterdir() if one.is_dir()})
    if are_placeholders(names) and len(found) == len(names):
        return ClassFolders(file=place, names=dict(enumerate(found)))
    if strange := [name for name in found if name not in names.values()]:
        what = f"{strange[0]!r} is no class of {model}"
        raise Problem(place, what, expected=f"folders named: {', '.join(names.values())}")
    return ClassFolders(file=place, names=dict(names))


def splits_in(place: Path) -> list[str]:
    """The splits that have a folder in ``place``."""
    return [split for split in dataset.SPLITS if (place / split).is_dir()]


def are_placeholders(names: Mapping[int, str]) -> bool:
    """Whether class names are numbers, which agree with any others."""
    return all(name.removeprefix("class").strip("_ ").isdigit() for name in names.values())
