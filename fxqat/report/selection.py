"""The images that a page shows, and the agreement of two models on all that they were compared on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fxqat.evaluation.predictor import Predictor
from fxqat.models.image_size import ImageSize
from fxqat.report.detections import Agreement, agreement
from fxqat.report.image_differences import Differences, difference
from fxqat.report.pictures import Picture, Shown, look, picture
from fxqat.report.predictions import covers


@dataclass(frozen=True, kw_only=True)
class ImageSelection:
    """What is shown of two models.

    Attributes:
        before: the float model.
        after: the quantized one.
        names: of the classes.
        imgsz: of the images.
        count: pictures.
    """

    before: Predictor
    after: Predictor
    names: Mapping[int, str]
    imgsz: ImageSize
    count: int

    def shown(self, paths: Sequence[Path], validated: Differences, progress: Callable[[int], None]) -> Shown:
        """The agreement on some images, and pictures of those that differ most.

        Args:
            paths: of the images for the agreement; those that cannot be read are left out.
            validated: images that were validated, of which the pictures are; without any they are of ``paths``.
            progress: called with images done.
        """
        same, compared = Agreement(covers=covers(self.before)), dict[Path, float | None]()
        for path, pair in look(paths, self.before, self.after, imgsz=self.imgsz):
            same += agreement([pair], same.covers)
            compared[path] = difference(pair)
            progress(same.images)
        pictures = tuple(self._pictures(validated or compared))
        what = f"{len(validated):,} validation images" if validated else f"{len(compared):,} images that were compared"
        chosen = f"Shown: {len(pictures)} of {what}, those on which the two models differ most."
        narrowed = pictures and len(validated or compared) > self.count
        return Shown(pictures=pictures, agreement=same, chosen=chosen if narrowed else "")

    def _pictures(self, differences: Differences) -> Iterator[Picture]:
        """Of images on which anything is found; in their order where no choice is to be made."""
        paths = most_different(differences) if len(differences) > self.count else list(differences)
        seen = (one for one in look(paths, self.before, self.after, imgsz=self.imgsz) if any(one[1]))
        for path, pair in islice(seen, self.count):
            yield picture(path, pair, self.names, self.imgsz)


def most_different(differences: Differences) -> list[Path]:
    """The images on which anything is found, those with the largest difference first, equal ones in their order."""
    known = {path: value for path, value in differences.items() if value is not None}
    return sorted(known, key=lambda path: -known[path])
