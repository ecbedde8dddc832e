"""A second sample of a val split: ``python -m bench.mirror --data V/data.yaml -o FOLDER`` writes its mirror images.

Rounding errors of an image and of its mirror image are nearly independent, while what a network can see in both is the
same. So where two models differ by chance the mirrored split says something else, without another labelled picture.
Images are written as PNG, without a loss; labels (class and x, y, width, height, or class and a polygon's points) are
mirrored with them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import yaml

from bench.command import parser, run
from fxqat.data import dataset, images
from fxqat.errors import Problem
from fxqat.files import write_text
from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.data.utils import img2label_paths

_BOX = 4  # numbers of a box: x, y, width, height
_POLYGON = 6  # numbers of the smallest polygon: x and y of three points


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the data set; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _written)


def _written(options: argparse.Namespace) -> dict[str, int]:
    data = dataset.read(dataset.find(options.data))
    found = images.image_paths(data.file, split=options.split)
    pictures, labels = (options.output / kind / options.split for kind in ("images", "labels"))
    for folder in (pictures, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for path, label in zip(found.paths, map(Path, img2label_paths([str(one) for one in found.paths])), strict=True):
        picture = cv2.imread(str(path))
        if picture is None:
            raise Problem(path, "is no image that OpenCV reads", remedy="take it out of the split")
        cv2.imwrite(str(pictures / f"{path.stem}.png"), picture[:, ::-1])
        if label.is_file():
            write_text(labels / f"{path.stem}.txt", mirrored(label.read_text(), label))
    where = f"images/{options.split}"
    content = {"train": where, "val": where, "names": data.names}
    write_text(options.output / "data.yaml", yaml.safe_dump(content, sort_keys=False))
    print(f"wrote {len(found.paths)} images to {options.output / 'data.yaml'}")
    return {"images": len(found.paths)}


def mirrored(text: str, where: Path) -> str:
    """The lines of a label file with every x to the right as far as it was to the left.

    Raises:
        Problem: a line is no box and no polygon.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            lines.append(" ".join([words[0], *_turned(words[1:])]))
        except ValueError as error:
            expected = "class x y width height, or class x y x y x y ..."
            raise Problem(f"{where}:{number}", f"is {line.strip()!r}", expected=expected) from error
    return "".join(f"{line}\n" for line in lines)


def _turned(words: Sequence[str]) -> list[str]:
    """The numbers of a row, as text, with each x as 1 - x."""
    numbers = [float(word) for word in words]
    if len(numbers) == _BOX:
        return [f"{1 - numbers[0]:.6f}", *words[1:]]
    if len(numbers) < _POLYGON or len(numbers) % 2:
        raise ValueError
    return [f"{1 - number:.6f}" if index % 2 == 0 else words[index] for index, number in enumerate(numbers)]


def _parser() -> argparse.ArgumentParser:
    made = parser("mirror", __doc__)
    made.add_argument("--data", required=True, metavar="V", help="data set YAML")
    made.add_argument("--split", default="val", help="(default: %(default)s)")
    made.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER")
    return made


if __name__ == "__main__":
    sys.exit(main())
