"""YAML with the line of every entry, for errors that name ``file:line``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import NoneType
from typing import Any

import yaml

from fxqat.errors import Problem


class Lines(dict[str, Any]):
    """A YAML mapping with its file, its line and the line of each key; at top level also the text.

    Attributes:
        file: name of the file.
        line: of its first key.
        text: of the whole file.
        sources: for keys that came from another mapping, that mapping.
    """

    file = ""
    line = 1
    text = ""

    @cached_property
    def lines(self) -> dict[str, int]:
        """The line of each key."""
        return {}

    @cached_property
    def sources(self) -> dict[str, Lines]:
        """Other mappings that keys came from."""
        return {}

    def source(self, key: str) -> Lines:
        """The mapping that ``key`` came from."""
        return self.sources.get(key, self)

    def where(self, key: str = "") -> str:
        """``file:line`` of ``key``, or of the mapping."""
        mine = self.source(key)
        return f"{mine.file}:{mine.lines.get(key, mine.line)}"

    def copied(self) -> Lines:
        """The same keys, lines and sources."""
        made = Lines(self)
        made.file, made.line, made.text = self.file, self.line, self.text
        made.lines.update(self.lines)
        made.sources.update(self.sources)
        return made


class _Loader(yaml.SafeLoader):
    file = ""


def _construct(loader: _Loader, node: yaml.MappingNode) -> Lines:
    made = Lines()
    made.file, made.line = loader.file, node.start_mark.line + 1
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        if key in made:
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
        made[key] = loader.construct_object(value_node, deep=True)
        made.lines[key] = key_node.start_mark.line + 1
    return made


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)


def parse(text: str, name: str) -> Any:
    """The content of a YAML text, its mappings as ``Lines``; ``name`` stands in errors.

    Raises:
        Problem: it is not YAML.
    """
    try:
        loader = _Loader(text)
        loader.file = name
        found = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Problem(f"{name}:{line}", f"is not YAML ({error.problem})", expected="a policy file") from error
    except yaml.reader.ReaderError as error:
        line, what = text.count("\n", 0, error.position) + 1, f"is not YAML (the character {error.character:#x})"
        raise Problem(f"{name}:{line}", what, expected="a policy file") from error
    except (ValueError, RecursionError) as error:  # a date that is none, lists in lists without end
        raise Problem(name, f"is not YAML ({error})", expected="a policy file") from error
    if isinstance(found, Lines):
        found.text = text
    return found


def item_lines(text: str, key: str) -> list[int]:
    """The line of each item of the list under a top-level ``key``; words carry none of their own."""
    root = yaml.compose(text, yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    items: list[yaml.Node] = next((value.value for name, value in pairs if name.value == key), [])
    return [item.start_mark.line + 1 for item in items]


def kind_of(value: object) -> str:
    """What a YAML value is, in YAML's words."""
    if isinstance(value, Mapping):
        return "a mapping"
    kinds = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number", NoneType: "empty"}
    return kinds.get(type(value), type(value).__name__)


def word(entry: Lines, key: str) -> str:
    """The text under ``key``; a number is its digits.

    Raises:
        Problem: it is a list, a mapping or empty.
    """
    value = entry[key]
    if isinstance(value, (list, Mapping)) or value is None:
        raise Problem(entry.where(key), f"{key} is {kind_of(value)}", expected="one word or text")
    return str(value)
