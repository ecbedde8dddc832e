"""Policies: a YAML file that gives every site its quantization. Rules are read from the top, and the first that matches
decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.graph.site import covers, nearest
from fxqat.policy.located_yaml import Lines, item_lines, parse
from fxqat.policy.resources import find
from fxqat.quant.spec import QConfig, QuantSpec
from fxqat.targets import TARGETS, Target, target_of

VERSION = 1
# Parts that networks have, in words that survive a change of architecture. A rule for one that a network has not is
# legal: one policy serves many networks.
ROLES = frozenset(
    {
        *("first_conv", "backbone", "neck", "head", "attention", "dfl", "decode", "detect", "detect_out"),
        *("box_out", "class_out", "mask", "mask_out", "keypoint_out", "angle_out"),
    }
)
# What a target decides where a spec does not: the type of the codes and how they are laid over a range.
FORM = ("bits", "signed", "symmetric", "narrow", "axis")
# The keys of a rule that name a spec.
_SPEC_KEYS = ("weight", "activation", "preactivation", "input")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a rule can select by: a site's path, the word for its operation, and its roles in the network."""

    path: str
    op: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PolicyRule:
    """One entry of ``rules``: the keys that match, the specs that act, the reason, and the line it stands on."""

    line: int
    site: str | None = None
    role: str | None = None
    op: str | None = None
    weight: QuantSpec | None = None
    activation: QuantSpec | None = None
    preactivation: QuantSpec | None = None
    input: QuantSpec | None = None
    why: str = ""

    def covers(self, site: Site) -> bool:
        """Whether every selector that is given holds for ``site``."""
        return (
            (self.site is None or covers(self.site, site.path))
            and (self.role is None or self.role in site.roles)
            and (self.op is None or self.op == site.op)
        )

    @property
    def selector(self) -> str:
        """The selectors as they stand in the file."""
        pairs = (("site", self.site), ("role", self.role), ("op", self.op))
        return ", ".join(f"{key}: {value}" for key, value in pairs if value is not None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a policy decided for one site, by which rule, and the reason where the target decided otherwise."""

    site: Site
    rule: PolicyRule
    qconfig: QConfig
    preactivation: QuantSpec | None = None
    input: QuantSpec | None = None
    overruled: str = ""

    @property
    def why(self) -> str:
        """The reason."""
        return self.overruled or self.rule.why


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One entry of ``corrections``: a name, its options, and the line it stands on."""

    line: int
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy file, checked: its specs are legal, its target known, its rules complete."""

    name: str
    text: str
    target: Target
    rules: tuple[PolicyRule, ...]
    doc: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    corrections: tuple[Wanted, ...] = ()

    @classmethod
    def load(cls, name: str | Path, *, target: str | None = None) -> Policy:
        """Read a policy by path, or a shipped one by name; ``target`` overrules the one it names.

        Raises:
            Problem: with ``file:line``, what is wrong, and the nearest legal name.
        """
        path = find("policies", name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(path, f"cannot be read ({error})", expected="a YAML file") from error
        return cls.parse(text, path.name, target=target)

    @classmethod
    def parse(cls, text: str, name: str, *, target: str | None = None, recorded: bool = False) -> Policy:
        """As ``load``, from the text of a policy; ``name`` stands in errors.

        With ``recorded`` the text comes from a .fxqat file, whose target may be one that no policy can name any more.
        """
        return _Reader(name, target or None, recorded).policy(text)

    def assign(self, sites: Sequence[Site]) -> dict[str, Decision]:
        """The decision for every site, by path.

        Raises:
            Problem: a site that no rule decides, a rule that matches nothing, or one that earlier rules shadow.
        """
        decisions: dict[str, Decision] = {}
        for site in sites:
            rule = next((rule for rule in self.rules if rule.covers(site)), None)
            if rule is None:
                raise Problem(
                    f"{self.name}: {site.path}",
                    "no rule decides this site",
                    remedy='end the rules with {site: "**", ...}',
                )
            decisions[site.path] = self._decision(site, rule)
        self._check_possible(decisions.values())
        self._check_used(sites, {decision.rule.line for decision in decisions.values()})
        return decisions

    def _decision(self, site: Site, rule: PolicyRule) -> Decision:
        has_weight = self.target.has_weight(site.op)
        qconfig = QConfig(weight=rule.weight if has_weight else None, activation=rule.activation)
        if not qconfig.is_float and not self.target.float_roles.keys() & site.roles and self.target.is_float(site.op):
            why = f"{self.target.name} runs {site.op} in float only"
            return Decision(site=site, rule=rule, qconfig=QConfig(), overruled=why)
        self.target.check(
            qconfig,
            op=site.op,
            roles=site.roles,
            where=f"{self.name}:{rule.line}",
            site=site.path,
            preactivation=rule.preactivation,
            input=rule.input if has_weight else None,
        )
        return Decision(
            site=site,
            rule=rule,
            qconfig=qconfig,
            preactivation=rule.preactivation,
            input=rule.input if has_weight else None,
        )

    def _check_possible(self, decisions: Iterable[Decision]) -> None:
        """A rule may cover operations that the target has no integer kernel for, but not them alone."""
        by_rule: dict[int, list[Decision]] = {}
        for decision in decisions:
            by_rule.setdefault(decision.rule.line, []).append(decision)
        for line, found in by_rule.items():
            if all(one.overruled for one in found):
                op = found[0].site.op
                raise Problem(
                    f"{self.name}:{line}",
                    f"{found[0].site.path} cannot be quantized: {found[0].overruled}",
                    remedy=f"add {{op: {op}, float: true}} above",
                )

    def _check_used(self, sites: Sequence[Site], used: set[int]) -> None:
        for rule in self.rules:
            if rule.line in used:
                continue
            covered = next((site for site in sites if rule.covers(site)), None)
            if covered is None and rule.role in ROLES and rule.site is None and rule.op is None:
                continue
            where = f"{self.name}:{rule.line}"
            if covered is None:
                raise Problem(
                    where, f"the rule for {rule.selector} matches no site", remedy=_near_selector(rule, sites)
                )
            first = next(earlier.line for earlier in self.rules if earlier.covers(covered))
            what = f"decides nothing: line {first} decides {covered.path} and all it matches first"
            raise Problem(where, f"the rule for {rule.selector} {what}", remedy="move it up or delete it")


@dataclass(frozen=True)
class _Reader:
    """Turns YAML into a Policy; every error names ``file:line``."""

    name: str
    overruled: str | None = None
    recorded: bool = False

    def policy(self, text: str) -> Policy:
        content = self._mapping(parse(text, self.name), "policy")
        self._known(content, ("version", "doc", "target", "specs", "rules", "corrections", "qat"), "policy")
        if content.get("version") != VERSION:
            raise self._problem(
                content, f"version is {content.get('version')!r}", "version", expected=f"version: {VERSION}"
            )
        target = self._target(content)
        specs = _Specs(read=self._spec, entries=self._specs(content), target=target)
        rules = content.get("rules")
        if not isinstance(rules, list) or not rules:
            raise self._problem(content, "has no rules", "rules", expected="a list under rules:")
        read = tuple(self._rule(self._mapping(rule, "rule"), specs) for rule in rules)
        specs.check_unused()
        options = {key: content[key] for key in ("qat",) if key in content}
        return Policy(
            name=self.name,
            text=text,
            target=target,
            rules=read,
            doc=str(content.get("doc", "")),
            options=options,
            corrections=self._corrections(content, text),
        )

    def _target(self, content: Lines) -> Target:
        name = content.get("target") if self.overruled is None else self.overruled
        known = ", ".join(TARGETS)
        if (target := target_of(str(name))) is not None and (target.replaced_by is None or self.recorded):
            return target
        what = f"unknown target {name!r}" if target is None else f"the target {name} is no more"
        remedy = nearest(str(name), TARGETS) if target is None else f"write {target.replaced_by}"
        where = f"{self.name}:{content.lines.get('target', content.line)}" if self.overruled is None else "--target"
        raise Problem(where, what, expected=f"one of: {known}", remedy=remedy)

    def _specs(self, content: Lines) -> dict[str, Lines]:
        raw = self._mapping(content.get("specs", Lines()), "specs")
        return {name: self._mapping(entry, f"spec {name}") for name, entry in raw.items()}

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
        self._known(entry, ("site", "role", "op", *_SPEC_KEYS, "float", "why"), "rule")
        if not entry.keys() & {"site", "role", "op"}:
            raise self._problem(entry, "a rule selects nothing", expected="site:, role: or op:")
        chosen = {key: self._named_spec(entry, key, specs) for key in _SPEC_KEYS if key in entry}
        self._check_glob(entry)
        if entry.get("float", False) is not True and not chosen:
            raise self._problem(entry, "a rule says nothing to do", expected="float: true, or weight: and activation:")
        if entry.get("float") and chosen:
            raise self._problem(
                entry, f"a rule says float and {next(iter(chosen))} at once", "float", expected="one of them"
            )
        self._check_input(entry, chosen)
        words = {key: str(entry[key]) for key in ("site", "role", "op", "why") if key in entry}
        return PolicyRule(line=entry.line, **words, **chosen)  # type: ignore[arg-type]

    def _check_input(self, entry: Lines, chosen: Mapping[str, QuantSpec]) -> None:
        if "input" not in chosen:
            return
        if "weight" not in chosen:
            raise self._problem(entry, "a rule gives an input spec without a weight spec", "input", expected="both")
        if (function := chosen["input"].through) is not None:
            what = f"an input spec looks through {function}, which no layer applies to its input"
            raise self._problem(entry, what, "input", expected="a spec without through")

    def _corrections(self, content: Lines, text: str) -> tuple[Wanted, ...]:
        raw = content.get("corrections", [])
        if not isinstance(raw, list):
            raise self._problem(
                content, f"corrections: is {type(raw).__name__}", "corrections", expected="a list of names"
            )
        return tuple(
            self._correction(entry, line) for entry, line in zip(raw, item_lines(text, "corrections"), strict=True)
        )

    def _correction(self, entry: Any, line: int) -> Wanted:
        if isinstance(entry, str):
            return Wanted(line=line, name=entry)
        if isinstance(entry, Lines) and len(entry) == 1:
            ((name, options),) = entry.items()
            if isinstance(options, Lines):
                return Wanted(line=line, name=name, options=options)
        raise Problem(
            f"{self.name}:{line}",
            f"a correction is {entry!r}",
            expected="a name, or {name: {option: value}}",
        )

    def _check_glob(self, entry: Lines) -> None:
        try:
            covers(str(entry.get("site", "")), "")
        except re.error as error:
            raise self._problem(entry, f"the glob {entry['site']!r} is not legal ({error})", "site") from error

    def _named_spec(self, entry: Lines, key: str, specs: _Specs) -> QuantSpec:
        if entry[key] not in specs.entries:
            known = ", ".join(specs.entries) or "none"
            raise self._problem(
                entry,
                f"unknown spec {entry[key]!r}",
                key,
                expected=f"one of: {known}",
                near=(entry[key], specs.entries),
            )
        return specs.named(entry[key], key)

    def _mapping(self, value: Any, what: str) -> Lines:
        if isinstance(value, Lines):
            return value
        raise Problem(self.name, f"{what} is {type(value).__name__}", expected="a mapping of keys to values")

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
        line = entry.lines.get(key or "", entry.line)
        return Problem(
            f"{self.name}:{line}", what, expected=expected, remedy=nearest(str(near[0]), near[1]) if near else ""
        )


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


def _near_selector(rule: PolicyRule, sites: Sequence[Site]) -> str:
    if rule.role is not None:
        return nearest(rule.role, {role for site in sites for role in site.roles} | ROLES)
    if rule.op is not None:
        return nearest(rule.op, {site.op for site in sites})
    return nearest(rule.site or "", [site.path for site in sites])
