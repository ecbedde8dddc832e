"""A policy's YAML, checked entry by entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.graph.site import covers, nearest
from fxqat.policy.inheritance import resolved
from fxqat.policy.located_yaml import Lines, item_lines, kind_of, parse, word
from fxqat.policy.policy_text import policy_text
from fxqat.policy.rules import CorrectionEntry, PolicyRule
from fxqat.quant.spec import QuantSpec
from fxqat.targets import TARGETS, Target, target_of

VERSION = 1
# What a target decides where a spec does not: the type of the codes and how they are laid over a range.
FORM = ("bits", "signed", "symmetric", "narrow", "axis")
# The keys of a rule that name a spec.
_SPEC_KEYS = ("weight", "activation", "preactivation", "input")
RULE_KEYS = ("site", "role", "op", *_SPEC_KEYS, "float", "when", "why")
POLICY_KEYS = ("version", "doc", "extends", "target", "specs", "rules", "corrections", "qat")


@dataclass(frozen=True, kw_only=True)
class PolicyContent:
    """What a policy file says, checked; see Policy."""

    text: str
    target: Target
    rules: tuple[PolicyRule, ...]
    doc: str
    options: Mapping[str, Any]
    corrections: tuple[CorrectionEntry, ...]


@dataclass(frozen=True)
class Reader:
    """Turns YAML into a PolicyContent; every error names ``file:line``.

    Attributes:
        name: of the file.
        overruled: the target in place of the file's.
        recorded: the text is from a .fxqat file, whose target may be one that no policy can name any more.
        folder: of the file, where the policy that it extends is looked for first.
    """

    name: str
    overruled: str | None = None
    recorded: bool = False
    folder: Path | None = None

    def read(self, text: str) -> PolicyContent:
        """The content of ``text``.

        Raises:
            Problem: with ``file:line``, what is wrong, and the nearest legal name.
        """
        own = self._mapping(parse(text, self.name), "policy", self.name)
        self._known(own, POLICY_KEYS, "policy")
        if own.get("version") != VERSION:
            raise self._problem(own, f"version is {own.get('version')!r}", "version", expected=f"version: {VERSION}")
        content = resolved(own, self.folder)
        target = self._target(content)
        specs = _Specs(read=self._spec, entries=self._specs(content), target=target)
        rules = content.get("rules")
        if not rules:
            raise self._problem(content, "has no rules", "rules", expected="a list under rules:")
        read = tuple(self._rule(rule, specs) for rule in rules)
        specs.check_unused()
        options = {key: content[key] for key in ("qat",) if key in content}
        return PolicyContent(
            text=text if content is own else policy_text(content),
            target=target,
            rules=read,
            doc=word(content, "doc") if "doc" in content else "",
            options=options,
            corrections=self._corrections(content),
        )

    def _target(self, content: Lines) -> Target:
        name = content.get("target") if self.overruled is None else self.overruled
        known = ", ".join(TARGETS)
        if (target := target_of(str(name))) is not None and (target.replaced_by is None or self.recorded):
            return target
        what = f"unknown target {name!r}" if target is None else f"the target {name} is no more"
        remedy = nearest(str(name), TARGETS) if target is None else f"write {target.replaced_by}"
        where = content.where("target") if self.overruled is None else "--target"
        raise Problem(where, what, expected=f"one of: {known}", remedy=remedy)

    def _specs(self, content: Lines) -> dict[str, Lines]:
        raw = self._mapping(content.get("specs", Lines()), "specs", content.where("specs"))
        return {name: self._mapping(entry, f"spec {name}", raw.where(name)) for name, entry in raw.items()}

    def _spec(self, name: str, entry: Lines, legal: QuantSpec) -> QuantSpec:
        """The spec of an entry; the form that it does not name is the target's."""
        self._known(entry, [one.name for one in fields(QuantSpec)], f"spec {name}")
        values: dict[str, Any] = {key: getattr(legal, key) for key in FORM if key not in entry}
        values |= {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        try:
            return QuantSpec(**values)
        except (ValueError, TypeError) as error:
            bad = next((key for key in entry if str(error).startswith(f"{key}:")), None)
            raise self._problem(entry, f"spec {name}: {error}", bad) from error

    def _rule(self, entry: Lines, specs: _Specs) -> PolicyRule:
        self._known(entry, RULE_KEYS, "rule")
        if not entry.keys() & {"site", "role", "op"}:
            raise self._problem(entry, "a rule selects nothing", expected="site:, role: or op:")
        chosen = {key: self._named_spec(entry, key, specs) for key in _SPEC_KEYS if key in entry}
        words = {key: word(entry, key) for key in ("site", "role", "op", "why") if key in entry}
        self._check_glob(entry)
        if not isinstance(entry.get("float", False), bool):
            raise self._problem(entry, f"float is {entry['float']!r}", "float", expected="true or false")
        if not entry.get("float") and not chosen:
            raise self._problem(entry, "a rule says nothing to do", expected="float: true, or weight: and activation:")
        if entry.get("float") and chosen:
            raise self._problem(
                entry, f"a rule says float and {next(iter(chosen))} at once", "float", expected="one of them"
            )
        self._check_input(entry, chosen)
        where = {"line": entry.line, "file": entry.file, "optional": self._optional(entry)}
        return PolicyRule(**where, **words, **chosen)  # type: ignore[arg-type]

    def _optional(self, entry: Lines) -> bool:
        if entry.get("when", "present") != "present":
            what = f"when is {entry['when']!r}"
            raise self._problem(entry, what, "when", expected="present, or no such key")
        return "when" in entry

    def _check_input(self, entry: Lines, chosen: Mapping[str, QuantSpec]) -> None:
        if "input" not in chosen:
            return
        if "weight" not in chosen:
            raise self._problem(entry, "a rule gives an input spec without a weight spec", "input", expected="both")
        if (function := chosen["input"].through) is not None:
            what = f"an input spec looks through {function}, which no layer applies to its input"
            raise self._problem(entry, what, "input", expected="a spec without through")

    def _corrections(self, content: Lines) -> tuple[CorrectionEntry, ...]:
        raw, source = content.get("corrections", []), content.source("corrections")
        if not isinstance(raw, list):
            raise self._problem(content, f"corrections: is {kind_of(raw)}", "corrections", expected="a list of names")
        lines = item_lines(source.text, "corrections")
        return tuple(self._correction(*one, source.file) for one in zip(raw, lines, strict=True))

    def _correction(self, entry: Any, line: int, file: str) -> CorrectionEntry:
        if isinstance(entry, str):
            return CorrectionEntry(line=line, file=file, name=entry)
        if isinstance(entry, Lines) and len(entry) == 1:
            ((name, options),) = entry.items()
            if isinstance(options, Lines):
                return CorrectionEntry(line=line, file=file, name=name, options=options)
        raise Problem(
            f"{file}:{line}",
            f"a correction is {entry!r}",
            expected="a name, or {name: {option: value}}",
        )

    def _check_glob(self, entry: Lines) -> None:
        try:
            covers(str(entry.get("site", "")), "")
        except re.error as error:
            raise self._problem(entry, f"the glob {entry['site']!r} is not legal ({error})", "site") from error

    def _named_spec(self, entry: Lines, key: str, specs: _Specs) -> QuantSpec:
        if not isinstance(entry[key], str) or entry[key] not in specs.entries:
            known = ", ".join(specs.entries) or "none"
            raise self._problem(
                entry,
                f"unknown spec {entry[key]!r}",
                key,
                expected=f"one of: {known}",
                near=(entry[key], specs.entries),
            )
        return specs.named(entry[key], key)

    def _mapping(self, value: Any, what: str, where: str) -> Lines:
        if isinstance(value, Lines):
            return value
        raise Problem(where, f"{what} is {kind_of(value)}", expected="a mapping of keys to values")

    def _known(self, entry: Lines, keys: Iterable[str], what: str) -> None:
        keys = list(keys)
        for key in entry:
            if key not in keys:
                expected = f"one of: {', '.join(keys)}"
                raise self._problem(entry, f"unknown key {key!r} in {what}", key, expected=expected, near=(key, keys))

    def _problem(
        self,
        entry: Lines,
        what: str,
        key: str | None = None,
        *,
        expected: str = "",
        near: tuple[Any, Iterable[str]] | None = None,
    ) -> Problem:
        remedy = nearest(str(near[0]), near[1]) if near else ""
        return Problem(entry.where(key or ""), what, expected=expected, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class _Specs:
    """The entries of ``specs``; each becomes a spec where a rule uses it, for a weight or for an activation."""

    read: Callable[[str, Lines, QuantSpec], QuantSpec]
    entries: Mapping[str, Lines]
    target: Target
    used: set[str] = field(default_factory=set)

    def named(self, name: str, key: str) -> QuantSpec:
        self.used.add(name)
        return self.read(name, self.entries[name], self.target.weight if key == "weight" else self.target.activation)

    def check_unused(self) -> None:
        for name in self.entries.keys() - self.used:
            self.read(name, self.entries[name], QuantSpec())
