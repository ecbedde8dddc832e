"""A detector as a graph: the module that passes transform, that is trained, saved, compared and exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, fx, nn

from fxqat.graph.prune import drop_unused_modules
from fxqat.models.families import FAMILIES
from fxqat.models.family import Family, FinalOutput, HeadSpec, RawOutput


@dataclass(frozen=True, kw_only=True)
class Source:
    """The float model behind a graph: enough to build and trace it again.

    Attributes:
        name: of its file.
        sha256: of that file; empty for an architecture.
        architecture: Ultralytics' YAML.
        names: class names by index.
        stride: pixels per cell of each level.
        channels: (in, out) of every convolution by its path.
        unnamed: how many classes the model gives no name, so that their number is used.
        task: Ultralytics' word, which names its family.
        head: fields of the family's HeadSpec; none for a YOLOv8 detection head.
    """

    name: str
    sha256: str
    architecture: Mapping[str, Any]
    names: Mapping[int, str]
    stride: tuple[float, ...]
    channels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unnamed: int = 0
    task: str = "detect"
    head: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """What is known of its task."""
        return FAMILIES[self.task]

    @property
    def head_spec(self) -> HeadSpec:
        """The sizes of its head."""
        return HeadSpec(**{"classes": len(self.names), **self.head})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was done to a graph: enough to do it again. ``patterns`` are (file name, SHA-256) of a user's own rule
    files, ``passes`` the
    names of a user's own passes."""

    stage: str = "float"
    policy_name: str = ""
    policy_text: str = ""
    target: str = ""
    patterns: tuple[tuple[str, str], ...] = ()
    passes: tuple[str, ...] = ()
    calibration: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


class Detector(nn.Module):
    """A traced detector.

    In eval, images (B, 3, H, W) in 0..1 give (predictions, raw predictions) as Ultralytics' own model does; its family
    says what they are. In training they give the raw predictions alone, and no decode is computed.
    """

    def __init__(self, gm: fx.GraphModule, source: Source, recipe: Recipe) -> None:
        super().__init__()
        self.gm, self.source, self.recipe = gm, source, recipe
        self._raw: fx.GraphModule | None = None

    def forward(self, images: Tensor) -> Any:
        """Predictions, see the class."""
        if not self.training:
            return self.gm(images)
        if self._raw is None:
            object.__setattr__(self, "_raw", cut(self.gm, 1))  # not a child: its modules are those of self.gm
        return self._raw(images)  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any]) -> Detector:
        return Detector(copy.deepcopy(self.gm, memo), self.source, self.recipe).train(self.training)

    def with_graph(self, gm: fx.GraphModule, **changes: Any) -> Detector:
        """This detector with another graph and the given changes to its recipe."""
        return Detector(gm, self.source, replace(self.recipe, **changes)).train(gm.training)

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
