"""A detector as a graph: the module that passes transform, that is trained, saved, compared and exported."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from fxqat.graph.prune import drop_unused_modules
from fxqat.models.families import FAMILIES
from fxqat.models.family import Family, FinalOutput, HeadSpec, RawOutput
from fxqat.models.image_size import DEFAULT_SIZE, MAX_SIDE, ImageSize


@dataclass(frozen=True, kw_only=True)
class Source:
    """The float model that a graph was traced from, as a record.

    Attributes:
        name: of its file.
        sha256: of that file; empty for an architecture.
        architecture: Ultralytics' YAML, where the model tells it.
        names: class names by index.
        stride: pixels per cell of each level.
        unnamed: how many classes the model gives no name, so that their number is used.
        task: Ultralytics' word, which names its family.
        head: fields of the family's HeadSpec; none for a YOLOv8 detection head.
        imgsz: pixels of a side of the images that it was trained on; 0 where its file does not tell.
    """

    name: str
    sha256: str
    architecture: Mapping[str, Any]
    names: Mapping[int, str]
    stride: tuple[float, ...]
    unnamed: int = 0
    task: str = "detect"
    head: Mapping[str, Any] = field(default_factory=dict)
    imgsz: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.imgsz, int) and 0 <= self.imgsz <= MAX_SIDE):
            raise ValueError(f"imgsz {self.imgsz!r} is no size of an image")

    @property
    def family(self) -> Family:
        """What is known of its task."""
        return FAMILIES[self.task]

    @property
    def head_spec(self) -> HeadSpec:
        """The sizes of its head."""
        return HeadSpec(**{"classes": len(self.names), **self.head})


@dataclass(frozen=True, kw_only=True)
class RuleFile:
    """A user's own rule file.

    Attributes:
        name: without its folder.
        sha256: of its content.
        lists: the lists of rules that it defines, among FUSE, QUANTIZE and LOWER.
    """

    name: str
    sha256: str
    lists: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PassRecord:
    """A pass as it ran.

    Attributes:
        name: of the pass.
        options: its fields by name, as far as words and numbers tell them.
        says: its own line of result.
        milliseconds: it took.
        diff: what it changed in the graph's text, as a unified diff.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    milliseconds: float = 0.0
    diff: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was done to a graph, as a record.

    Attributes:
        stage: ``float``, ``qat`` or ``int8``.
        policy_name: of its file.
        policy_text: the whole file.
        target: the runtime that it was prepared for.
        patterns: rule files of the user's own.
        passes: in order, shipped ones and the user's own.
        calibration: see ``fxqat.api.calibrate``.
        training: see ``fxqat.training``.
    """

    stage: str = "float"
    policy_name: str = ""
    policy_text: str = ""
    target: str = ""
    patterns: tuple[RuleFile, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


class Detector(nn.Module):
    """A traced detector.

    In eval, images (B, 3, H, W) in 0..1 give (predictions, raw predictions) as Ultralytics' own model does; its family
    says what they are. In training they give the raw predictions alone, and no decode is computed.

    Attributes:
        gm: the graph.
        source: what it was traced from.
        recipe: what was done to it.
        network: of stage ``qat``, the fused float network before its policy, without numbers: those of ``gm`` have the
            same names. It is what another target's graph is made of; None where it is not known.
        label: what messages call it: the .fxqat file that it was read from, or what it was traced from.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        source: Source,
        recipe: Recipe,
        network: Mapping[str, Any] | None = None,
        *,
        label: str = "",
    ) -> None:
        super().__init__()
        self.gm, self.source, self.recipe, self.network = gm, source, recipe, network
        self.label = label or source.name
        self._raw: fx.GraphModule | None = None

    def forward(self, images: Tensor) -> Any:
        """Predictions, see the class."""
        if not self.training:
            return self.gm(images)
        if self._raw is None:
            object.__setattr__(self, "_raw", cut(self.gm, 1))  # not a child: its modules are those of self.gm
        return self._raw(images)  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> Detector:
        gm = copy.deepcopy(self.gm, memo)
        return Detector(gm, self.source, self.recipe, self.network, label=self.label).train(self.training)

    def with_graph(self, gm: fx.GraphModule, **changes: Any) -> Detector:
        """This detector with another graph and the given changes to its recipe."""
        recipe = replace(self.recipe, **changes)
        return Detector(gm, self.source, recipe, self.network, label=self.label).train(gm.training)

    @property
    def fit(self) -> str:
        """How pictures become images of its size, see ``fxqat.data.images.load_image``."""
        return self.source.family.fit

    @property
    def compared(self) -> tuple[RawOutput, ...]:
        """The raw outputs that its predictions are made of."""
        return self.source.family.compared(self.source.head_spec)

    @property
    def trained(self) -> tuple[RawOutput, ...]:
        """The raw outputs that training moves."""
        return self.source.family.trained(self.source.head_spec)

    @property
    def final(self) -> tuple[FinalOutput, ...]:
        """What it predicts."""
        return self.source.family.final(self.source.head_spec)

    @property
    def names(self) -> Mapping[int, str]:
        """Class names by index."""
        return self.source.names

    @property
    def stride(self) -> int:
        """Pixels that an image's sides are multiples of: those of a cell of the coarsest level, and 32 at least."""
        return max(32, *map(int, self.source.stride))

    @property
    def imgsz(self) -> ImageSize:
        """The size of the images that it was trained on with quantizers, or calibrated on, or trained on in float; 640
        where none is known."""
        trained = self.recipe.training.get("config", {}).get("imgsz")
        return ImageSize.of(trained or self.recipe.calibration.get("imgsz") or self._float_size or DEFAULT_SIZE)

    @property
    def _float_size(self) -> int:
        """Pixels of a side of its source's training images, rounded up to the stride as Ultralytics does; 0 where that
        is not known."""
        return math.ceil(self.source.imgsz / self.stride) * self.stride

    @property
    def stage(self) -> str:
        """``float``, ``qat`` or ``int8``."""
        return self.recipe.stage


def cut(gm: fx.GraphModule, item: int) -> fx.GraphModule:
    """A view of ``gm`` that computes only item ``item`` of its output: 0 the predictions, 1 what training needs.

    The view shares every module and parameter with ``gm``.
    """
    graph = copy.deepcopy(gm.graph)
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    output.args = (output.args[0][item],)
    view = fx.GraphModule(gm, graph, type(gm).__name__)
    graph.eliminate_dead_code()
    drop_unused_modules(view)
    view.recompile()
    return view.train(gm.training)
