"""Rule files, loaded by path: each is Python that defines lists of rules named for the pass that applies them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fxqat.errors import Problem
from fxqat.files import sha256
from fxqat.graph.rewrite import Rule
from fxqat.graph.site import nearest
from fxqat.policy.resources import find


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of each pass, in order. A user's rules stand before the shipped ones.

    Attributes:
        fuse: for the pass fuse.
        quantize: for the pass insert, by target name.
        lower: for the pass lower.
        files: (name, SHA-256) of the user's files.
    """

    fuse: tuple[Rule, ...]
    quantize: Mapping[str, tuple[Rule, ...]]
    lower: tuple[Rule, ...]
    files: tuple[tuple[str, str], ...] = field(default=())

    @classmethod
    def load(cls, *files: str | Path) -> Rules:
        """The shipped rules, and those of a user's ``files``: each may define ``FUSE``, ``QUANTIZE`` and ``LOWER``.

        Raises:
            Problem: a file is missing, does not run, or defines none of the lists.
        """
        paths = [find("patterns", file) for file in files]
        users = [_run(path) for path in paths]
        for path, one in zip(paths, users, strict=True):
            if not any(hasattr(one, name) for name in ("FUSE", "QUANTIZE", "LOWER")):
                raise Problem(path, "defines no rules", expected="a tuple FUSE or LOWER, or a dict QUANTIZE by target")
        shipped = {name: getattr(_shipped(name), name.upper()) for name in ("fuse", "quantize", "lower")}
        targets = {key for one in users for key in getattr(one, "QUANTIZE", {})} | set(shipped["quantize"])
        return cls(
            fuse=(*_joined(users, "FUSE"), *shipped["fuse"]),
            quantize={key: (*_by_target(users, key), *shipped["quantize"].get(key, ())) for key in sorted(targets)},
            lower=(*_joined(users, "LOWER"), *shipped["lower"]),
            files=tuple((path.name, sha256(path)) for path in paths),
        )

    def named(self, name: str) -> Rule:
        """The rule called ``name``.

        Raises:
            Problem: there is none.
        """
        every = {
            one.name: one for one in [*self.fuse, *self.lower, *(r for rules in self.quantize.values() for r in rules)]
        }
        if name not in every:
            raise Problem(name, "no such rule", expected=f"one of: {', '.join(every)}", remedy=nearest(name, every))
        return every[name]


def _joined(modules: Sequence[ModuleType], name: str) -> tuple[Rule, ...]:
    return tuple(_checked(one, module) for module in modules for one in getattr(module, name, ()))


def _by_target(modules: Sequence[ModuleType], target: str) -> tuple[Rule, ...]:
    return tuple(_checked(one, module) for module in modules for one in getattr(module, "QUANTIZE", {}).get(target, ()))


def _checked(one: Any, module: ModuleType) -> Rule:
    if isinstance(one, Rule):
        return one
    raise Problem(module.__file__, f"{one!r} is no rule", expected="functions decorated with @rule")


@cache
def _shipped(name: str) -> ModuleType:
    return _run(find("patterns", name))


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fxqat_patterns_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise Problem(path, "is no Python file", expected="rules decorated with @rule")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Problem(
            path, f"does not run ({type(error).__name__}: {error})", expected="rules decorated with @rule"
        ) from error
    return module
