"""A data set drawn by arithmetic and a detector trained on it: something to try fxqat on without any download."""

from fxqat.demo.dataset import make_dataset
from fxqat.demo.signs import CLASSES

__all__ = ["CLASSES", "make_dataset"]
