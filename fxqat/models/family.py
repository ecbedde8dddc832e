"""Interface of a model family: everything that is specific to a task, its heads, their outputs and metrics.

A family is one object, made in fxqat/models/families. Tracing asks it for the adapters of heads, policies for roles,
distillation and analysis for the links of raw outputs, evaluation and training for Ultralytics' own classes, export for
the names of outputs and for metadata. No other module is specific to a task.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import cycle, islice
from typing import Any

from torch import Tensor, nn

Criterion = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]  # (raw predictions, batch) to parts and their names
BRANCHES = ("one2many", "one2one")  # of a head that is trained with both; the second predicts without NMS
Shapes = Sequence[Sequence[int | str | None]]  # of a file's outputs; a word or nothing where a size is open


class Labels(Enum):
    """How a data set of a task says what its images show."""

    FILES = "a YAML that names its splits and classes; a text file beside each image, an object a row"
    FOLDERS = "a folder for each split, in it a folder of images for each class"


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """What a row of a label file holds: a class index, then coordinates relative to the image.

    Attributes:
        columns: how many there are at least, the class among them.
        exact: whether there are no more.
        words: the row in words, for errors.
    """

    columns: int
    words: str
    exact: bool = False

    def fits(self, count: int) -> bool:
        """Whether a row of ``count`` columns can be one."""
        return count == self.columns if self.exact else count >= self.columns


BOX_ROW = LabelRow(columns=5, words="class x y w h")


class Link(Enum):
    """The function from a raw output to a prediction; it decides how two networks' outputs are compared."""

    BERNOULLI = "a sigmoid, each channel by itself"
    CATEGORICAL = "a softmax over the channels of each group: bins of a distance, or classes"
    DISTANCE = "the value itself, in cells"
    PLAIN = "the value itself, in units of its own"


@dataclass(frozen=True, kw_only=True)
class RawOutput:
    """One tensor of a head before it is decoded.

    Attributes:
        key: a short name: ``boxes``, ``scores``.
        title: the same in reports: ``box logits``.
        path: its keys in the raw predictions.
        link: what turns it into a prediction.
        groups: of channels that belong together; divergences are a mean over groups.
        anchored: whether its last axis counts anchors, (B, C, A); else it is of the whole image.
        confidence: whether its largest probability says how much its anchor's other outputs matter.
        loss: its name in the loss of distillation, after ``distill_``.
    """

    key: str
    title: str
    path: tuple[str, ...]
    link: Link
    groups: int = 1
    anchored: bool = True
    confidence: bool = False
    loss: str = ""

    def of(self, raw: Any) -> Any:
        """The tensor in the raw predictions ``raw``."""
        for key in self.path:
            raw = raw[key]
        return raw

    @property
    def branch(self) -> tuple[str, ...]:
        """Where the outputs stand that share its anchors."""
        return self.path[:-1]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Neighbouring channels of a final output that mean one thing, such as the four numbers of a box.

    Attributes:
        key: a short name: ``boxes``.
        size: how many.
        unit: in which a report counts their errors: ``px``.
        axes: what they are on the image, over and over: ``xy`` where they are lengths across and down in turns,
            ``xy-`` where each third is neither; nothing where none is a length.
    """

    key: str
    size: int
    unit: str
    axes: str = ""


@dataclass(frozen=True, kw_only=True)
class FinalOutput:
    """One tensor that a model predicts, as an exported file names it.

    Attributes:
        name: in a file: ``output0``.
        columns: what its channels are, in order.
        axis: of the channels.
        rank: how many axes it has.
    """

    name: str
    columns: tuple[Columns, ...]
    axis: int = 1
    rank: int = 3

    @property
    def size(self) -> int:
        """Channels in all."""
        return sum(one.size for one in self.columns)

    @property
    def shape(self) -> str:
        """In words, for errors."""
        axes = ["N", "A", "B"][: self.rank - 1]
        return f"({', '.join([*axes[: self.axis], str(self.size), *axes[self.axis :]])})"

    def lengths(self, height: int, width: int) -> list[int]:
        """The length that each channel is a part of, of an image of so many pixels: ``width``, ``height``, or 1 where a
        channel is no length on the image."""
        known = {"x": width, "y": height}
        return [known.get(axis, 1) for one in self.columns for axis in islice(cycle(one.axes or "-"), one.size)]

    def fits(self, y: Tensor, images: int) -> bool:
        """Whether ``y`` can be this output for so many images."""
        return y.dim() == self.rank and len(y) == images and y.shape[self.axis] == self.size

    def scores(self, y: Tensor) -> Tensor:
        """The probabilities in ``y``, (N, classes, A); of a head without NMS the confidences, (N, 1, M)."""
        if self.has("confidence"):
            return y[..., self.slice("confidence")].transpose(1, 2)
        found = y[:, self.slice("scores")]
        return found if self.rank > 2 else found[..., None]

    def boxes(self, y: Tensor) -> Tensor | None:
        """Centre x, centre y, width and height in pixels, (N, 4, A), where ``y`` has a box for each anchor."""
        return y[:, self.slice("boxes")] if self.axis == 1 and self.has("boxes") else None

    def slice(self, key: str) -> slice:
        """Where the channels called ``key`` are."""
        start = 0
        for one in self.columns:
            if one.key == key:
                return slice(start, start + one.size)
            start += one.size
        raise KeyError(key)

    def has(self, key: str) -> bool:
        """Whether there are channels called ``key``."""
        return any(one.key == key for one in self.columns)


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """The sizes of one model's head that its outputs follow from: plain numbers, which a file can hold.

    Attributes:
        classes: how many.
        kind: Ultralytics' class of the head.
        bins: of the distribution of a box's side; 1 where the head gives distances.
        masks: prototypes of a mask.
        keypoints: how many, and numbers for each.
        angles: numbers of a box's rotation.
        end2end: whether it has one2one branches beside the one2many ones.
        nms_free: whether it predicts by the one2one branches.

    Raises:
        ValueError: sizes that cannot be.
    """

    classes: int
    kind: str = "Detect"
    bins: int = 16
    masks: int = 0
    keypoints: tuple[int, int] = (0, 0)
    angles: int = 0
    end2end: bool = False
    nms_free: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", tuple(self.keypoints))  # JSON has lists
        if self.classes < 1 or self.bins < 1:
            raise ValueError(f"head: {self.classes} classes and {self.bins} bins are not legal, expected 1 or more")
        if len(self.keypoints) != 2 or not all(isinstance(one, int) and one >= 0 for one in self.keypoints):
            raise ValueError(f"head: key points {self.keypoints} are not legal, expected their number and that of each")
        if self.nms_free and not self.end2end:
            raise ValueError("head: without NMS is not legal for a head without one2one branches")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of Ultralytics' validator, 0..1.

    Attributes:
        key: among the validator's results: ``metrics/mAP50-95(B)``.
        title: in tables: ``mAP50-95``.
        second: key of the number shown beside it.
        second_title: its title.
        of: what it is of, where a task has several: ``box``, ``mask``.
        part: the attribute of Ultralytics' metrics that holds it.
        matches: the key, among Ultralytics' statistics of an image, of which predictions are right.
        statistic: how it follows from single images: ``average precision``, or the ``share`` that is right.
        labels: what is counted as right or wrong.
    """

    key: str
    title: str
    second: str
    second_title: str
    of: str = ""
    part: str = "box"
    matches: str = "tp"
    statistic: str = "average precision"
    labels: str = "boxes"

    @property
    def name(self) -> str:
        """Its title with what it is of: ``mask mAP50-95``."""
        return f"{self.of} {self.title}".lstrip()


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """What all models of one task share.

    Attributes:
        task: Ultralytics' word for it.
        model: Ultralytics' model class, by dotted name.
        heads: the adapter of each head, by the head's class name.
        spec: the sizes of a head.
        raw: the raw outputs of one branch of such a head.
        final: what such a head predicts.
        metrics: of its predictions; the first decides whether one model is better than another.
        fit: how a picture becomes an image of the network's size: ``letterbox``, or ``crop`` of its middle.
        trainer: Ultralytics' trainer class, by dotted name; likewise the others.
        validator: Ultralytics' validator class.
        head: what Ultralytics' losses read of a head, given its sizes, its strides in pixels and its graph.
        criterion: Ultralytics' loss, given a model with the attributes of its models and the sizes of its head.
        for_loss: raw predictions as that loss wants them.
        summed: whether that loss is a sum over the batch, else a mean.
        labels: how its data sets say what an image shows.
        row: what a row of a label file holds, where there are such files.
        data_keys: what a data set's YAML must say beside splits and classes.
        metadata: what an exported file says besides what every file says.
        described: the sizes of the head behind a file, as far as its outputs tell: from its metadata, its number of
            classes and the shapes of its outputs.
    """

    task: str
    model: str
    heads: Mapping[str, Callable[[Any, HeadSpec], nn.Module]]
    spec: Callable[[Any], HeadSpec]
    raw: Callable[[HeadSpec], tuple[RawOutput, ...]]
    final: Callable[[HeadSpec], tuple[FinalOutput, ...]]
    metrics: tuple[Metric, ...]
    trainer: str
    validator: str
    head: Callable[[HeadSpec, Tensor, nn.Module], Any]
    criterion: Callable[[Any, HeadSpec], Criterion]
    for_loss: Callable[[Any], Any] = field(default=lambda raw: raw)
    summed: bool = True
    labels: Labels = Labels.FILES
    row: Callable[[HeadSpec], LabelRow] = field(default=lambda spec: BOX_ROW)
    data_keys: Callable[[HeadSpec], Mapping[str, Any]] = field(default=lambda spec: {})
    fit: str = "letterbox"
    metadata: Callable[[HeadSpec], dict[str, Any]] = field(default=lambda spec: {})
    described: Callable[[Mapping[str, str], int, Shapes], HeadSpec] = field(
        default=lambda metadata, classes, shapes: HeadSpec(classes=classes)
    )

    @property
    def metric(self) -> Metric:
        """What decides whether one model is better than another."""
        return self.metrics[0]

    def compared(self, spec: HeadSpec) -> tuple[RawOutput, ...]:
        """The raw outputs that a model's predictions are made of."""
        return self._in_branch(spec, "one2one" if spec.nms_free else "one2many")

    def trained(self, spec: HeadSpec) -> tuple[RawOutput, ...]:
        """The raw outputs that training moves: of both branches where there are two."""
        branches = BRANCHES if spec.end2end else BRANCHES[:1]
        return tuple(one for branch in branches for one in self._in_branch(spec, branch))

    def loss_times(self, batch: int) -> int:
        """How often that loss counts the mean over a batch of so many images."""
        return batch if self.summed else 1

    def _in_branch(self, spec: HeadSpec, branch: str) -> tuple[RawOutput, ...]:
        if not spec.end2end:
            return self.raw(spec)
        return tuple(replace(one, path=(branch, *one.path)) for one in self.raw(spec))


def imported(name: str) -> Any:
    """The object behind a dotted name, imported when it is wanted: Ultralytics' trainers take seconds."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def branch_losses(criterion: Any) -> list[Any]:
    """The losses in one of Ultralytics': of a head with two branches that of each, else the loss itself."""
    found = [getattr(criterion, branch) for branch in BRANCHES if hasattr(criterion, branch)]
    return found or [criterion]


def features(raw: Any) -> list[Tensor]:
    """The maps (B, C, H, W) that a head reads, in its raw predictions."""
    maps: list[Tensor] = raw.get("one2many", raw)["feats"]
    return maps
