"""Policies that extend another: ``extends: NAME_OR_PATH``.

The child's rules come first and the parent's after them, each of which may then decide nothing. Specs are joined, the
child's in place of the parent's of the same name, also for the parent's rules; any other key that the child has
replaces the parent's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.policy.located_yaml import Lines, item_lines, kind_of, parse, word
from fxqat.policy.resources import find, is_file

_INHERITED = ("doc", "target", "corrections", "qat")


def read_text(path: Path) -> str:
    """The text of a policy file.

    Raises:
        Problem: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(path, f"cannot be read ({error})", expected="a YAML file") from error


def resolved(content: Lines, folder: Path | None, heirs: tuple[str, ...] = ()) -> Lines:
    """The content of a policy with all that it inherits, each part with the file and line that it stands on.

    Args:
        content: of the file; its own where it extends nothing.
        folder: of the file, where a parent is looked for first.
        heirs: names of the files that extend this one.

    Raises:
        Problem: rules that are no list of mappings, no such parent, or one that extends its own child.
    """
    _check_rules(content)
    if "extends" not in content:
        return content
    where = f"{content.file}:{content.lines['extends']}"
    path = _found(word(content, "extends"), folder, where)
    heirs = (*heirs, content.file)
    if path.name in heirs:
        raise Problem(where, f"extends itself: {' -> '.join((*heirs, path.name))}", expected="a policy above this one")
    parent = parse(read_text(path), path.name)
    if not isinstance(parent, Lines):
        raise Problem(path.name, f"policy is {kind_of(parent)}", expected="a mapping of keys to values")
    return _joined(content, resolved(parent, path.parent, heirs))


def _found(name: str, folder: Path | None, where: str) -> Path:
    beside = None if folder is None else folder / name
    if beside is not None and is_file(beside):
        return beside
    try:
        return find("policies", name)
    except Problem as problem:
        raise Problem(where, f"extends {name!r}, but there is {problem.what}", expected=problem.expected) from problem


def _joined(child: Lines, parent: Lines) -> Lines:
    made = child.copied()
    del made["extends"]
    for key in _INHERITED:
        if key not in child and key in parent:
            made[key] = parent[key]
            made.sources[key] = parent.source(key)
    made["specs"] = _specs(child.get("specs"), parent.get("specs"))
    made["rules"] = [*(child.get("rules") or ()), *map(_optional, parent.get("rules") or ())]
    return made


def _specs(child: Any, parent: Any) -> Any:
    """The parent's specs with the child's in their place; what is no mapping is left for the reader to refuse."""
    if not isinstance(parent, Lines) or (child is not None and not isinstance(child, Lines)):
        return child if child is not None else parent
    made = parent.copied()
    for name, entry in (child or {}).items():
        made[name] = entry
    return made


def _optional(rule: Lines) -> Lines:
    """A parent's rule: that the child decides first is no mistake."""
    made = rule.copied()
    made["when"] = "present"
    return made


def _check_rules(content: Lines) -> None:
    rules = content.get("rules")
    if rules is None:
        return
    if not isinstance(rules, list):
        raise Problem(content.where("rules"), f"rules is {kind_of(rules)}", expected="a list: each rule after a dash")
    for rule, line in zip(rules, item_lines(content.text, "rules"), strict=True):
        if not isinstance(rule, Lines):
            raise Problem(f"{content.file}:{line}", f"rule is {kind_of(rule)}", expected="a mapping of keys to values")
