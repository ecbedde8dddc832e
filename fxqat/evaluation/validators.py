"""Ultralytics' validators, independent of the machine's speed, and one around a plain prediction function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fxqat.data.dataset import DataSet
from fxqat.data.rectangle import in_rectangle
from fxqat.evaluation.classification import from_guesses, ranked
from fxqat.evaluation.metrics import Accuracy, from_statistics
from fxqat.evaluation.predictor import Predictor
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.models.family import Family, Labels, imported
from fxqat.models.image_size import ImageSize

# isort: split
from ultralytics.engine.validator import BaseValidator


class SquareValidator(BaseValidator):
    """Ultralytics' validator with non-maximum suppression image by image: over a batch it stops at a time limit and
    leaves the rest without detections, so that a slow machine would measure a lower accuracy.

    Stands before the validator of a task, see ``square_validator``.

    Attributes:
        statistics: of the newest validation, one entry an image under each of Ultralytics' names; Ultralytics clears
            its own.
    """

    statistics: dict[str, list[Any]]

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Detections of each image."""
        return [found for one in _image_by_image(preds) for found in super(SquareValidator, self).postprocess(one)]

    def get_stats(self) -> dict[str, Any]:
        """Ultralytics' metrics."""
        self.statistics = {key: list(values) for key, values in self.metrics.stats.items()}
        found: dict[str, Any] = super().get_stats()
        return found

    @property
    def measures(self) -> bool:
        """Whether the newest validation met a label."""
        return bool(self.metrics.nt_per_class.sum())

    def accuracy(self, name: str, family: Family) -> Accuracy:
        """What the newest validation measured of the model called ``name``; images are called by their number."""
        paths = [Path(str(index)) for index in range(len(self.statistics["tp"]))]
        return from_statistics(name, self.metrics, self.names, paths, self.statistics, family=family)


class ClassValidator(BaseValidator):
    """Ultralytics' validator of classes, equal probabilities always in the same order, as ``evaluate_classes`` has it.

    Stands before the validator of a task, see ``square_validator``.
    """

    def update_metrics(self, preds: Tensor, batch: dict[str, Any]) -> None:
        """Note guesses and classes of a batch, where Ultralytics gathers them."""
        self.pred.append(ranked(preds).int().cpu())
        self.targets.append(batch["cls"].int().cpu())

    @property
    def measures(self) -> bool:
        """Whether the newest validation met a label."""
        return bool(self.targets)

    def accuracy(self, name: str, family: Family) -> Accuracy:
        """As ``SquareValidator.accuracy``."""
        order, wanted = torch.cat(self.pred).numpy(), torch.cat(self.targets).numpy()
        paths = [Path(str(index)) for index in range(len(wanted))]
        return from_guesses(name, family.metric, self.names, paths, order, wanted)


class ImageValidator(SquareValidator):
    """Ultralytics' data set, preprocessing, NMS, matching and metrics, with a loop of our own.

    Ultralytics' loop wants an AutoBackend, copies the model, reports to its analytics and looks for a font on the
    network; a prediction function needs none of that.

    Args:
        model: to evaluate.
        root: folder with ``images/`` and ``labels/`` and room for Ultralytics' label cache.
        data_set: whose images they are.
        size: of the images.
        batch: images at a time.
    """

    def __init__(self, model: Predictor, root: Path, data_set: DataSet, *, size: ImageSize, batch: int) -> None:
        super().__init__(save_dir=root / "runs", args=_arguments(model.family, size.longest, batch))
        self.size = size
        self.training, self.device, self.stride = False, torch.device("cpu"), 32
        self.names, self.rows_are_final = data_set.names, model.final[0].axis == 2
        own = {"val": str(root / "images"), "names": self.names, "nc": len(self.names), "channels": 3}
        self.data = {**data_set.keys, **own}  # what tasks read beside: shapes and spreads of key points
        self.dataloader = self.get_dataloader(self.data["val"], batch)

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> Any:
        """Ultralytics' data set, its images of ``size``."""
        return in_rectangle(super().build_dataset(img_path, mode, batch), self.size)

    @property
    def files(self) -> list[Path]:
        """The image files Ultralytics accepted, in the order of evaluation."""
        return [Path(name) for name in self.dataloader.dataset.im_files]

    def run(self, predict: Callable[[Tensor], Any], progress: Callable[[int, int], None]) -> dict[str, list[Any]]:
        """Evaluate every image and return Ultralytics' statistics, one entry an image; metrics are in ``metrics``.

        Args:
            predict: images (N, 3, height, width) in 0..1 to the family's final outputs.
            progress: called with images done and images in all.
        """
        self.init_metrics(SimpleNamespace(names=self.names, end2end=self.rows_are_final))
        for batch in self.dataloader:
            batch = self.preprocess(batch)
            self.update_metrics(self.postprocess(predict(batch["img"])), batch)
            progress(self.seen, len(self.dataloader.dataset))
        self.get_stats()
        return self.statistics


# What stands before Ultralytics' validator, by what its data sets are labelled with.
_KINDS: Mapping[Labels, type[SquareValidator] | type[ClassValidator]] = {
    Labels.FILES: SquareValidator,
    Labels.FOLDERS: ClassValidator,
}


@cache
def square_validator(family: Family, kind: type[BaseValidator] | None = None) -> Any:
    """``kind``, or what suits the family's data sets, on Ultralytics' validator of its task."""
    kind = kind or _KINDS[family.labels]
    return type(kind.__name__, (kind, imported(family.validator)), {"__doc__": kind.__doc__})


def _image_by_image(preds: Any) -> Iterator[Any]:
    """The final outputs of a batch, one image at a time; raw predictions beside them are dropped."""
    final = preds[0] if isinstance(preds, tuple | list) and isinstance(preds[-1], dict) else preds
    if isinstance(final, Tensor):
        yield from final.split(1)
    else:
        yield from zip(*(one.split(1) for one in final), strict=True)


def _arguments(family: Family, side: int, batch: int) -> dict[str, Any]:
    return {
        "task": family.task,
        "mode": "val",
        "imgsz": side,
        "batch": batch,
        "rect": False,
        "workers": 0,
        "plots": False,
        "save_json": False,
        "val": False,  # Ultralytics' final evaluation by COCO's own tool, which needs annotation files
        "device": "cpu",
    }
