"""Plain data as a graph again. Nothing is looked up, imported or called that is outside a vocabulary.

A GraphModule runs Python that fx generates from its graph, in which targets, names and keywords stand as they are; so
each of them must be a plain identifier here.
"""

from __future__ import annotations

import keyword
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from fxqat.graph.info import NodeInfo, set_info
from fxqat.graph.literals import decode
from fxqat.graph.serialize import Structure
from fxqat.graph.vocabulary import FOLDER, Vocabulary

_OPERATIONS = ("placeholder", "get_attr", "call_module", "call_function", "call_method", "output")
# What torch makes of arguments that fit no module; a bug of the vocabulary's own would be another.
_UNFIT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    SyntaxError,
)


class Unreadable(ValueError):
    """Data describes no graph of the vocabulary."""


def build(structure: Structure, tensors: Mapping[str, Tensor], vocabulary: Vocabulary) -> fx.GraphModule:
    """The graph that ``write`` described, with ``tensors`` for its numbers.

    Args:
        structure: data of JSON, from anywhere.
        tensors: by name; they become the graph's own. Others than it asks for are ignored.
        vocabulary: what the structure may name.

    Raises:
        Unreadable: the data is no structure, or names something outside the vocabulary.
    """
    made = fx.GraphModule(nn.Module(), fx.Graph(), _identifier(_field(structure, "name", str)))
    same = _field(structure, "same", dict)
    given = {**tensors, **{name: tensors[origin] for name, origin in same.items() if _text(origin) in tensors}}
    _build_modules(made, _field(structure, "modules", list), given, vocabulary)
    _fill(made, given, same, set(map(_text, _field(structure, "frozen", list))))
    notes = _build_notes(_field(structure, "notes", list), vocabulary)
    graph = _build_graph(_field(structure, "nodes", list), notes, made, vocabulary)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)  # of code that cannot work, such as 1[0]
            made.graph = graph
        graph.lint()
    except _UNFIT as error:
        raise Unreadable(f"its nodes make no graph ({_words(error)})") from error
    return made


def _build_notes(records: list[Any], vocabulary: Vocabulary) -> list[NodeInfo]:
    try:
        return [vocabulary.read_note(record) for record in records]
    except _UNFIT as error:
        raise Unreadable(f"its notes make no sense ({_words(error)})") from error


def _build_graph(records: list[Any], notes: list[NodeInfo], gm: fx.GraphModule, vocabulary: Vocabulary) -> fx.Graph:
    graph, made = fx.Graph(), list[fx.Node]()

    def node(number: Any) -> fx.Node:
        if type(number) is not int or not 0 <= number < len(made):
            raise ValueError(f"it reads node {number!r}, which does not stand before it")
        return made[number]

    for index, record in enumerate(records):
        try:
            made.append(_build_node(record, graph, node, gm, vocabulary))
            set_info(made[-1], _note(record, notes))
        except _UNFIT as error:
            raise Unreadable(f"node {index}: {_words(error)}") from error
    if [one.op for one in made if one.op == "output"] != ["output"] or made[-1].op != "output":
        raise Unreadable("its last node, and no other, is not the output")
    return graph


def _build_node(record: Any, graph: fx.Graph, node: Any, gm: fx.GraphModule, vocabulary: Vocabulary) -> fx.Node:
    op, name = _field(record, "op", str), _identifier(_field(record, "name", str))
    args = tuple(decode(one, node) for one in _field(record, "args", list, []))
    kwargs = {_identifier(key): decode(one, node) for key, one in _field(record, "kwargs", dict, {}).items()}
    target = _build_target(op, _field(record, "target", str), args, gm, vocabulary)
    made = graph.create_node(op, target, args, kwargs, name)
    if made.name != name:
        raise ValueError(f"its name {name!r} is taken")
    return made


def _note(record: Any, notes: list[NodeInfo]) -> NodeInfo:
    number = record.get("note")
    if number is not None and (type(number) is not int or not 0 <= number < len(notes)):
        raise ValueError(f"it has no note {number!r}")
    note = NodeInfo() if number is None else notes[number]
    roles = tuple(_text(role) for role in _field(record, "roles", list, []))
    return replace(note, site=_field(record, "site", str, ""), roles=roles, rule=_field(record, "rule", str, ""))


def _build_target(op: str, name: str, args: tuple[Any, ...], gm: fx.GraphModule, vocabulary: Vocabulary) -> Any:
    if op not in _OPERATIONS:
        raise ValueError(f"its operation is {op!r}")
    if op == "call_function":
        function = _word(name, vocabulary.functions, "function")
        if not vocabulary.may_read(function, args):
            raise ValueError(f"the attribute {str(args[1:])[:80]} is outside the vocabulary")
        return function
    if op == "call_method":
        return _word(name, dict.fromkeys(vocabulary.methods, name), "method")
    if op == "call_module" and type(_module(gm, name)) is nn.Module:
        raise ValueError(f"{name} is no module to call")
    if op == "get_attr" and not isinstance(_tensor(gm, name), Tensor):
        raise ValueError(f"{name} is no tensor")
    return name if op in {"call_module", "get_attr"} else _identifier(name)


def _build_modules(
    gm: fx.GraphModule, records: list[Any], tensors: Mapping[str, Tensor], vocabulary: Vocabulary
) -> None:
    made: dict[str, nn.Module] = {"": gm}
    for entry in records:
        try:
            path, record = entry
            if path == "":
                _register(gm, "", record, tensors)
                continue
            module = made[_field(record, "same", str)] if "same" in record else _build_module(record, vocabulary)
            _attach(made, path, module, vocabulary)
            made[path] = module
            if type(module) is nn.Module and "same" not in record:
                _register(module, f"{path}.", record, tensors)
        except _UNFIT as error:
            raise Unreadable(f"module {_path_in(entry)}: {_words(error)}") from error


def _path_in(entry: Any) -> str:
    return str(entry[0] if isinstance(entry, list) and entry else entry)[:60]


def _build_module(record: Any, vocabulary: Vocabulary) -> nn.Module:
    name = _field(record, "class", str)
    if name == FOLDER:
        return nn.Module()
    word = _word(name, vocabulary.modules, "module")

    def no_node(number: Any) -> Any:
        raise ValueError("its arguments name a node")

    arguments = {key: decode(one, no_node) for key, one in _field(record, "arguments", dict).items()}
    module = word.build(**arguments)
    if type(module) is not word.kind:
        raise ValueError(f"its arguments make a {type(module).__name__}")
    return module


def _attach(made: Mapping[str, nn.Module], path: str, module: nn.Module, vocabulary: Vocabulary) -> None:
    """Put ``module`` at its path, where nothing is yet or what its parent's constructor has made."""
    above, _, name = path.rpartition(".")
    parent = made[above]
    if not _is_part(name) or name.startswith("_") or hasattr(type(parent), name):
        raise ValueError(f"{path!r} is no path of a module")
    word = vocabulary.modules.get(vocabulary.name_of(type(parent)) or "")
    is_free = parent._modules.get(name) is not None or getattr(parent, name, None) is None
    if not is_free or path in made or (word is not None and name in word.owns):
        raise ValueError(f"{path!r} is taken")
    if any(one is parent for one in module.modules()):
        raise ValueError(f"{path!r} would stand within itself")
    setattr(parent, name, module)


def _register(folder: nn.Module, prefix: str, record: Any, tensors: Mapping[str, Tensor]) -> None:
    for kind in ("parameters", "buffers"):
        for name in _field(record, kind, list):
            if not _is_part(_text(name)) or hasattr(folder, name):
                raise ValueError(f"{name!r} is no name of a tensor")
            tensor = tensors[prefix + name]
            if kind == "buffers":
                folder.register_buffer(name, tensor)
            else:
                folder.register_parameter(name, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))


def _fill(gm: fx.GraphModule, tensors: Mapping[str, Tensor], same: Mapping[str, str], frozen: set[str]) -> None:
    """Give every module its tensors, and names of one tensor the same."""
    try:
        for path, module in gm.named_modules():
            _fill_module(module, f"{path}." if path else "", tensors, frozen)
        for name, origin in same.items():
            _tie(gm, name, origin)
    except _UNFIT as error:
        raise Unreadable(f"its tensors do not fit its modules ({_words(error)})") from error


def _fill_module(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor], frozen: set[str]) -> None:
    """Load the module's own tensors as ``load_state_dict(assign=True)`` would; that is quadratic in the modules."""
    passing = module._non_persistent_buffers_set
    own = {**module._parameters, **{name: one for name, one in module._buffers.items() if name not in passing}}
    given = dict[str, Tensor]()
    for name, place in own.items():
        if place is not None:
            full = prefix + name
            given[full] = _fitting(full, tensors[full], place)
            if isinstance(place, nn.Parameter):
                place.requires_grad_(full not in frozen)
    told = {"version": module._version, "assign_to_params_buffers": True}
    errors = list[str]()
    module._load_from_state_dict(given, prefix, told, True, errors, errors, errors)
    if errors:
        raise ValueError(errors[0])


def _fitting(name: str, tensor: Tensor, place: Tensor) -> Tensor:
    if tensor.shape != place.shape or tensor.is_floating_point() != place.is_floating_point():
        has, wants = (f"{one.dtype} {list(one.shape)}" for one in (tensor, place))
        raise ValueError(f"{name} is {has}, not {wants}")
    return tensor


def _tie(gm: fx.GraphModule, name: str, origin: str) -> None:
    path, _, leaf = name.rpartition(".")
    module, tensor = gm.get_submodule(path), _tensor(gm, origin)
    kind = module._parameters if leaf in module._parameters else module._buffers
    if kind.get(leaf) is None or isinstance(kind[leaf], nn.Parameter) != isinstance(tensor, nn.Parameter):
        raise ValueError(f"{name} is no tensor that {origin} can be")
    kind[leaf] = tensor


def _field(record: Any, key: str, kind: type[Any], default: Any = None) -> Any:
    """``record[key]``, of exactly the type ``kind``, or ``default`` where it is missing; None is no default."""
    if not isinstance(record, Mapping):
        raise Unreadable(f"{str(record)[:40]!r} stands where a mapping should")
    value = record.get(key, default)
    if type(value) is not kind:
        raise Unreadable(f"{key!r} is missing or no {kind.__name__}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable(f"{str(value)[:40]!r} stands where a word should")
    return value


def _word(name: str, words: Mapping[str, Any], kind: str) -> Any:
    if name not in words:
        raise ValueError(f"the {kind} {name[:80]!r} is outside the vocabulary")
    return words[name]


def _identifier(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise Unreadable(f"{name[:40]!r} is no identifier")
    return name


def _is_part(name: str) -> bool:
    """Whether ``name`` can be a part of a path: letters, digits and underscores."""
    return name.isascii() and name.replace("_", "a").isalnum()


def _module(gm: fx.GraphModule, path: str) -> nn.Module:
    if not all(map(_is_part, path.split("."))):
        raise ValueError(f"{path[:60]!r} is no path")
    return gm.get_submodule(path)


def _tensor(gm: fx.GraphModule, path: str) -> Any:
    above, _, leaf = path.rpartition(".")
    module = _module(gm, above) if above else gm
    return module._parameters.get(leaf, module._buffers.get(leaf)) if _is_part(leaf) else None


def _words(error: BaseException) -> str:
    words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return words.strip().split("\n")[0][:200] or type(error).__name__
