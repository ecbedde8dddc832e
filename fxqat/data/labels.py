"""Label files as Ultralytics reads them: whether a split has an object to measure by or to learn from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from fxqat.errors import Problem
from fxqat.models.family import BOX_ROW, LabelRow

_PLACE = 4  # coordinates that every row has
_LOWEST, _HIGHEST = -0.01, 1.01  # Ultralytics' tolerance for relative coordinates


def check_labels(
    file: Path,
    split: str,
    images: Sequence[Path],
    classes: int,
    row: LabelRow = BOX_ROW,
) -> None:
    """Refuse a split whose label files Ultralytics would all refuse, or that has no object.

    Reading ends at the first object, so a split in order costs one file.

    Args:
        file: the data set YAML, named in errors.
        split: its name.
        images: paths of its images.
        classes: how many there are.
        row: what a row holds.

    Raises:
        Problem: as above, with the first label file that is refused and why.
    """
    refused, usable = list[str](), 0
    for label, text in _texts(images):
        rows = [line.split() for line in text.splitlines() if line.strip()]
        why = next((words for one in rows if (words := _fault(one, classes, row))), "")
        if rows and not why:
            return
        refused += [f"{label.name}: {why}"] if why else []
        usable += not why
    if refused and len(refused) == len(images):
        what = f"split '{split}': every label file is malformed (first {refused[0]})"
        raise Problem(file, what, expected=f"rows of: {row.words}, relative to the image")
    faults = f", {len(refused)} malformed (first {refused[0]})" if refused else ""
    what = f"split '{split}' has no labelled object ({len(images)} images, {usable} label files{faults})"
    raise Problem(file, what, expected="label files in labels/ beside images/")


def label_file(image: Path) -> Path:
    """Where Ultralytics looks for an image's labels: in ``labels`` in place of the last ``images``, as .txt."""
    from ultralytics.data.utils import img2label_paths

    return Path(img2label_paths([os.path.abspath(image)])[0])


def _texts(images: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Label files that are there, and what they hold; what is no text is given as it can be read."""
    for image in images:
        if (label := label_file(image)).is_file():
            yield label, label.read_text(encoding="utf-8-sig", errors="replace")


def _fault(words: list[str], classes: int, row: LabelRow) -> str:
    """What is wrong with a row, or nothing."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return f"{' '.join(words)[:40]!r} is not a row of numbers"
    if not row.fits(len(numbers)):
        return f"a row has {len(numbers)} columns"
    if numbers[0] not in range(classes):
        return f"class {words[0]} is none of 0 to {classes - 1}"
    wrong = [number for number in numbers[1 : 1 + _PLACE] if not _LOWEST <= number <= _HIGHEST]
    return f"coordinate {wrong[0]:g} is not in 0 to 1" if wrong else ""
