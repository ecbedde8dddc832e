"""How a trainer reads its images: Ultralytics' data sets, loaders and validators, with one size for all images."""

from __future__ import annotations

import copy
from typing import Any

from fxqat.errors import Problem
from fxqat.evaluation.validators import square_validator
from fxqat.models import offline  # noqa: F401 - before ultralytics
from fxqat.models.detector import Detector
from fxqat.models.family import Labels
from fxqat.training.data import in_order, ultralytics_images

# isort: split
from ultralytics.engine.trainer import BaseTrainer


class LoadingTrainer(BaseTrainer):
    """Base of the trainer of a Detector: what it trains and validates on.

    Attributes:
        given: the detector, whose family says how its data are labelled.
    """

    given: Detector

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Ultralytics' data set, all images of one size, in validation too."""
        if self.given.source.family.labels is Labels.FOLDERS:
            return super().build_dataset(img_path, mode, batch)
        return ultralytics_images(self, img_path, mode, batch)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader, in order in validation.

        Raises:
            Problem: none of the split's images can be read.
        """
        try:
            found = super().get_dataloader(dataset_path, batch_size, rank, mode)
        except FileNotFoundError as error:  # Ultralytics left out every image of a class folder as damaged
            raise Problem(self.args.data, f"split '{mode}' has no usable image") from error
        return found if mode == "train" else in_order(found, rank)

    def get_validator(self) -> Any:
        """Ultralytics' validator."""
        kind = square_validator(self.given.source.family)
        return kind(self.test_loader, save_dir=self.save_dir, args=copy.copy(self.args), _callbacks=self.callbacks)
