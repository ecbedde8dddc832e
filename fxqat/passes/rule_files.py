"""Rule files, loaded by path: each is Python that defines lists of rules named for the pass that applies them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fxqat.errors import Problem
from fxqat.files import sha256
from fxqat.graph.pass_text import PassMaker
from fxqat.graph.rewrite import Rule
from fxqat.graph.site import nearest
from fxqat.models.detector import RuleFile
from fxqat.passes.swap_activation import SwapActivation
from fxqat.policy.resources import find
from fxqat.targets import Target

LISTS = ("FUSE", "QUANTIZE", "LOWER", "PASSES")
FOLDERS = "FXQAT_PATTERNS"  # environment variable: folders of rule files, separated as in PATH
_LOADED: dict[str, Path] = {}  # files that this process has run, by SHA-256


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of each pass, in order. A user's rules stand before the shipped ones.

    Attributes:
        fuse: for the pass fuse.
        quantize: for the pass insert, by the name of a target or of rules that several share (``Target.rules``).
        lower: for the pass lower.
        passes: those that text may name (see fxqat.graph.pass_text), by name: the shipped ones and the user's.
        files: the user's.
    """

    fuse: tuple[Rule, ...]
    quantize: Mapping[str, tuple[Rule, ...]]
    lower: tuple[Rule, ...]
    passes: Mapping[str, PassMaker] = field(default_factory=dict)
    files: tuple[RuleFile, ...] = ()

    @classmethod
    def load(cls, *files: str | Path) -> Rules:
        """The shipped rules, and those of a user's ``files``: each may define ``FUSE``, ``QUANTIZE``, ``LOWER``, and
        ``PASSES``, a tuple of dataclasses that are passes.

        Raises:
            Problem: a file is missing, does not run, or defines none of the lists.
        """
        paths = [find("patterns", file) for file in files]
        users = [_run(path) for path in paths]
        for path, one in zip(paths, users, strict=True):
            if not any(hasattr(one, name) for name in LISTS):
                expected = "a tuple FUSE, LOWER or PASSES, or a dict QUANTIZE by target"
                raise Problem(path, "defines no rules", expected=expected)
        shipped = {name: getattr(_shipped(name), name.upper()) for name in ("fuse", "quantize", "lower")}
        targets = {key for one in users for key in getattr(one, "QUANTIZE", {})} | set(shipped["quantize"])
        return cls(
            fuse=(*_joined(users, "FUSE"), *shipped["fuse"]),
            quantize={key: (*_by_target(users, key), *shipped["quantize"].get(key, ())) for key in sorted(targets)},
            lower=(*_joined(users, "LOWER"), *shipped["lower"]),
            passes={**PASSES, **{one.name: one for user in users for one in getattr(user, "PASSES", ())}},
            files=tuple(_known(path, one) for path, one in zip(paths, users, strict=True)),
        )

    @classmethod
    def recorded(cls, files: Sequence[RuleFile], kind: str, step: str) -> Rules:
        """The shipped rules, and those of the user's files that a model was prepared with, as far as ``step`` needs
        them.

        A file that this process has loaded before is known by its content; others are looked for in the folders of
        the environment variable FXQAT_PATTERNS, never elsewhere: rules are code.

        Args:
            files: of the model's recipe.
            kind: the list that ``step`` applies: FUSE, QUANTIZE or LOWER.
            step: the word for it in an error.

        Raises:
            Problem: a file that defines such a list is not at hand.
        """
        return cls.load(*(_found(file, step) for file in files if kind in file.lists))

    def quantizing(self, target: Target) -> tuple[Rule, ...]:
        """Those of the pass insert for ``target``."""
        names = dict.fromkeys((target.name, target.rules))
        return tuple(rule for name in names for rule in self.quantize.get(name, ()))

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


def _known(path: Path, module: ModuleType) -> RuleFile:
    digest = sha256(path)
    _LOADED[digest] = path
    return RuleFile(name=path.name, sha256=digest, lists=tuple(name for name in LISTS if hasattr(module, name)))


def _found(file: RuleFile, step: str) -> Path:
    folders = os.environ.get(FOLDERS, "").split(os.pathsep)
    places = [*(Path(folder) / file.name for folder in folders if folder), _LOADED.get(file.sha256)]
    for path in places:
        if path is not None and path.is_file() and sha256(path) == file.sha256:
            return path
    raise Problem(
        file.name,
        f"is a rule file that the model was prepared with, and {step} applies its rules",
        expected=f"a file with SHA-256 {file.sha256[:12]}...",
        remedy=f"name its folder in the environment variable {FOLDERS}",
    )


# The shipped passes that a user may put between fuse and assign.
PASSES: Mapping[str, PassMaker] = {SwapActivation.name: SwapActivation}


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
