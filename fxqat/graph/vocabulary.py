"""The closed vocabulary of written graphs: the modules, functions and methods that a graph may be built of, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from fxqat.graph.info import NodeInfo

Arguments = Mapping[str, Any]
# The word for a plain nn.Module, which only holds others.
FOLDER = "Module"


@dataclass(frozen=True, kw_only=True)
class ModuleWord:
    """How modules of one class are written and built.

    Attributes:
        kind: the class itself; a subclass is another word.
        read: the arguments that ``build`` needs for an equal instance, each a constant of a graph (see
            ``fxqat.graph.literals``); raises ValueError where an instance has something that no argument tells.
        build: an instance with tensors of the right shapes, of any values: they are replaced.
        owns: children that ``build`` makes; all others are words of their own.
    """

    kind: type[nn.Module]
    read: Callable[[Any], Arguments]
    build: Callable[..., nn.Module]
    owns: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a written graph may name. Nothing else is looked up, imported or called when a graph is built.

    Attributes:
        modules: classes by name.
        functions: by name.
        methods: names of tensor methods.
        attributes: names that ``getattr`` may read of a tensor.
        write_note: what a node's note knows beside site, roles and rule, as data of JSON; None for nothing.
        read_note: the note of such data, at no site.
    """

    modules: Mapping[str, ModuleWord]
    functions: Mapping[str, Callable[..., Any]]
    methods: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    write_note: Callable[[NodeInfo], Any] = lambda note: None
    read_note: Callable[[Any], NodeInfo] = lambda data: NodeInfo()
    _names: dict[Any, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._names.update({word.kind: name for name, word in reversed(list(self.modules.items()))})
        self._names.update({function: name for name, function in reversed(list(self.functions.items()))})

    def name_of(self, thing: type[nn.Module] | Callable[..., Any]) -> str | None:
        """The name of a class or function, or None where it is outside the vocabulary."""
        return self._names.get(thing)

    def may_read(self, function: Any, args: Sequence[Any]) -> bool:
        """Whether ``function`` may be called with ``args``: getattr reads listed names alone."""
        return function is not getattr or (len(args) == 2 and args[1] in self.attributes)

    def with_words(
        self, *, modules: Mapping[str, ModuleWord] | None = None, functions: Mapping[str, Any] | None = None
    ) -> Vocabulary:
        """This vocabulary and more words.

        Raises:
            ValueError: a name that is taken.
        """
        taken = [*(modules or {}).keys() & self.modules.keys(), *(functions or {}).keys() & self.functions.keys()]
        if taken:
            raise ValueError(f"{taken[0]!r} is in the vocabulary already")
        return replace(
            self,
            modules={**self.modules, **(modules or {})},
            functions={**self.functions, **(functions or {})},
            _names={},
        )


def told_by(kind: type[nn.Module], names: Sequence[str], **constant: Any) -> ModuleWord:
    """The word of a class whose instances keep each argument of their constructor as an attribute of the same name.

    An attribute that is missing, as in modules that older versions of torch pickled, is left to the constructor.

    Args:
        kind: the class.
        names: of arguments.
        constant: arguments that are the same whatever the instance, such as ``device="meta"``: what is built gets other
            tensors anyhow.
    """

    def read(module: nn.Module) -> Arguments:
        return {name: getattr(module, name) for name in names if hasattr(module, name)}

    return ModuleWord(kind=kind, read=read, build=lambda **arguments: kind(**_only(arguments, names), **constant))


def _only(arguments: Arguments, names: Sequence[str]) -> Arguments:
    """``arguments``, none of which is outside ``names``: not every argument of a constructor is harmless."""
    if unknown := arguments.keys() - set(names):
        raise ValueError(f"unknown argument {min(unknown)!r}")
    return arguments
