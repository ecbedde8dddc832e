"""A graph as plain data: nodes in order, modules by class and arguments, each a word of a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from fxqat.graph.info import info_of
from fxqat.graph.literals import encode
from fxqat.graph.vocabulary import FOLDER, ModuleWord, Vocabulary

# A graph without its numbers: data of JSON, see ``write``.
Structure = Mapping[str, Any]


class Unwritable(ValueError):
    """A graph has something that the vocabulary has no word for."""


def write(gm: fx.GraphModule, vocabulary: Vocabulary) -> Structure:
    """``gm`` without its numbers. Those are ``gm.state_dict()``; of tensors that stand under several names, it tells
    the first.

    Returns:
        ``name``: the class of the GraphModule. ``nodes``: of each, in order, what ``_write_node`` gives. ``notes``:
        what nodes refer to by number. ``modules``: of each, parents first, its path with what ``_write_module`` gives.
        ``same``: later names of tensors, with the first. ``frozen``: names of parameters that take no gradient.

    Raises:
        Unwritable: a module, function, method or constant outside the vocabulary.
    """
    numbers = {node: index for index, node in enumerate(gm.graph.nodes)}
    state = gm.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
    notes: dict[str, int] = {}
    return {
        "name": type(gm).__name__,
        "nodes": [_write_node(node, numbers, notes, vocabulary) for node in gm.graph.nodes],
        "notes": [json.loads(note) for note in notes],
        "modules": list(_write_modules(gm, vocabulary)),
        "same": {name: origin for name, origin in names.items() if name != origin},
        "frozen": [name for name, one in gm.named_parameters() if not one.requires_grad],
    }


def _write_node(
    node: fx.Node, numbers: Mapping[fx.Node, int], notes: dict[str, int], vocabulary: Vocabulary
) -> dict[str, Any]:
    """``op``, ``name`` and ``target``; ``args``, ``kwargs``, ``site``, ``roles`` and ``rule`` where there are any;
    ``note``: which of ``notes``, added to them where it is new."""

    def number(value: Any) -> int:
        if isinstance(value, fx.Node):
            return numbers[value]
        raise TypeError(f"a constant of type {type(value).__name__}")

    info = info_of(node)
    try:
        args, kwargs = ([encode(one, number) for one in node.args], encode(dict(node.kwargs), number)["dict"])
    except TypeError as error:
        raise Unwritable(f"{info.site or node.name} has {error}") from error
    data = {"op": node.op, "name": node.name, "target": _write_target(node, vocabulary)}
    told = {"args": args, "kwargs": kwargs, "site": info.site, "roles": list(info.roles), "rule": info.rule}
    note = vocabulary.write_note(info)
    known = {} if note is None else {"note": notes.setdefault(json.dumps(note), len(notes))}
    return data | {key: value for key, value in told.items() if value} | known


def _write_target(node: fx.Node, vocabulary: Vocabulary) -> str:
    name: str | None = str(node.target)
    if node.op == "call_function":
        name = vocabulary.name_of(node.target)  # type: ignore[arg-type]
        if not vocabulary.may_read(node.target, node.args):
            raise Unwritable(f"{info_of(node).site or node.name} reads the attribute {node.args[1:]}")
    elif node.op == "call_method" and node.target not in vocabulary.methods:
        name = None
    if name is None:
        what = f"the {'function' if node.op == 'call_function' else 'method'} {_word_for(node.target)}"
        raise Unwritable(f"{info_of(node).site or node.name} calls {what}")
    return name


def _write_modules(gm: fx.GraphModule, vocabulary: Vocabulary) -> Iterator[list[Any]]:
    first: dict[nn.Module, str] = {gm: ""}
    yield ["", _write_folder(gm)]
    yield from _write_children(gm, "", frozenset(), first, vocabulary)


def _write_children(
    parent: nn.Module, path: str, owned: frozenset[str], first: dict[nn.Module, str], vocabulary: Vocabulary
) -> Iterator[list[Any]]:
    for name, child in parent._modules.items():
        if child is None or name in owned:
            continue
        at = f"{path}.{name}" if path else name
        if child in first:
            yield [at, {"same": first[child]}]
            continue
        first[child] = at
        word = _word_of(child, at, vocabulary)
        yield [at, _write_folder(child) if word is None else _write_module(child, at, word, vocabulary)]
        yield from _write_children(child, at, word.owns if word else frozenset(), first, vocabulary)


def _word_of(module: nn.Module, path: str, vocabulary: Vocabulary) -> ModuleWord | None:
    """The word of a module's class; None for a folder."""
    if type(module) is nn.Module:
        return None
    name = vocabulary.name_of(type(module))
    if name is None:
        raise Unwritable(f"{path} is a module of class {_word_for(type(module))}")
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        raise Unwritable(f"{path} has a forward or hooks of its own")
    return vocabulary.modules[name]


def _write_module(module: nn.Module, path: str, word: ModuleWord, vocabulary: Vocabulary) -> dict[str, Any]:
    """``class``: a word. ``arguments``: of its build."""

    def no_node(value: Any) -> Any:
        raise TypeError(f"a constant of type {type(value).__name__}")

    try:
        arguments = encode(dict(word.read(module)), no_node)["dict"]
    except (TypeError, ValueError) as error:
        raise Unwritable(f"{path} has {error}") from error
    return {"class": vocabulary.name_of(word.kind), "arguments": arguments}


def _write_folder(module: nn.Module) -> dict[str, Any]:
    """``class``: the word for a folder. ``parameters`` and ``buffers``: names of its own tensors."""
    buffers = [name for name, one in module._buffers.items() if one is not None]
    if passing := module._non_persistent_buffers_set & set(buffers):
        raise Unwritable(f"the graph has a buffer that no state dict holds ({min(passing)})")
    parameters = [name for name, one in module._parameters.items() if one is not None]
    return {"class": FOLDER, "parameters": parameters, "buffers": buffers}


def _word_for(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}".lstrip(".")
