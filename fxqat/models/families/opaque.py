"""Modules that families and blocks leave whole in a graph."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from fxqat.targets.operations import Place, register_operation


class TrainingOnly(nn.Module):
    """A module with one input, which in eval is its output: lowering leaves it out."""


class Opaque(nn.Module):
    """A module that stays one node of a traced graph, since what it does depends on the shapes of its inputs.

    A file holds it by its class and the arguments of its constructor. Every target knows it: its output is float, or,
    where it is TrainingOnly too, has the quantizer of its input.

    Attributes:
        arguments: names of these, which every instance keeps as attributes.
        owns: names of modules that the constructor makes; a file holds their tensors alone.
        moves: whether it only puts the values of its first input elsewhere.
        reads: whether it reads values; else its output follows from the shapes of its inputs.
    """

    arguments: ClassVar[tuple[str, ...]] = ()
    owns: ClassVar[tuple[str, ...]] = ()
    moves: ClassVar[bool] = False
    reads: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register_operation(cls.__name__, Place.SAME if issubclass(cls, TrainingOnly) else Place.NONE)
