"""YAML that knows on which line everything stands, for errors that name ``file:line``."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import yaml

from fxqat.errors import Problem


class Lines(dict[str, Any]):
    """A YAML mapping that knows its line and the line of each key."""

    line = 1

    @cached_property
    def lines(self) -> dict[str, int]:
        """The line of each key."""
        return {}


class _Loader(yaml.SafeLoader):
    pass


def _construct(loader: _Loader, node: yaml.MappingNode) -> Lines:
    made = Lines()
    made.line = node.start_mark.line + 1
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
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Problem(f"{name}:{line}", f"is not YAML ({error.problem})", expected="a policy file") from error
    except yaml.YAMLError as error:
        raise Problem(name, f"is not YAML ({str(error).splitlines()[0]})", expected="a policy file") from error


def item_lines(text: str, key: str) -> list[int]:
    """The line of each item of the list under a top-level ``key``; words carry none of their own."""
    root = yaml.compose(text, yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    items: list[yaml.Node] = next((value.value for name, value in pairs if name.value == key), [])
    return [item.start_mark.line + 1 for item in items]
