"""Policies: a YAML file that gives every site its quantization. Rules are read from the top, and the first that matches
decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fxqat.errors import Problem
from fxqat.graph.site import nearest
from fxqat.models.roles import ROLES
from fxqat.policy.inheritance import read_text
from fxqat.policy.reader import Reader
from fxqat.policy.resources import find
from fxqat.policy.rules import CorrectionEntry, Decision, PolicyRule, Site
from fxqat.quant.spec import QConfig
from fxqat.targets import Target


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy file, checked: its specs are legal, its target known, its rules complete.

    Attributes:
        name: of the file.
        text: of a policy that extends none: the file's where it did not, else written anew.
        target: that it is for.
        rules: its own, then those it inherits.
        doc: what it is for.
        options: the section ``qat``.
        corrections: what runs around calibration.
    """

    name: str
    text: str
    target: Target
    rules: tuple[PolicyRule, ...]
    doc: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    corrections: tuple[CorrectionEntry, ...] = ()

    @classmethod
    def load(cls, name: str | Path, *, target: str | None = None) -> Policy:
        """Read a policy by path, or a shipped one by name; ``target`` overrules the one it names.

        Raises:
            Problem: with ``file:line``, what is wrong, and the nearest legal name.
        """
        path = find("policies", name)
        return cls._read(Reader(path.name, target or None, folder=path.parent), read_text(path))

    @classmethod
    def parse(cls, text: str, name: str, *, target: str | None = None, recorded: bool = False) -> Policy:
        """As ``load``, from the text of a policy; ``name`` stands in errors.

        With ``recorded`` the text comes from a .fxqat file, whose target may be one that no policy can name any more.
        """
        return cls._read(Reader(name, target or None, recorded), text)

    @classmethod
    def _read(cls, reader: Reader, text: str) -> Policy:
        content = reader.read(text)
        return cls(name=reader.name, **{one.name: getattr(content, one.name) for one in fields(content)})

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
        self._check_used(sites, {id(decision.rule) for decision in decisions.values()})
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
            where=rule.where,
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
            by_rule.setdefault(id(decision.rule), []).append(decision)
        for found in by_rule.values():
            if all(one.overruled for one in found):
                op = found[0].site.op
                raise Problem(
                    found[0].rule.where,
                    f"{found[0].site.path} cannot be quantized: {found[0].overruled}",
                    remedy=f"add {{op: {op}, float: true}} above",
                )

    def _check_used(self, sites: Sequence[Site], used: set[int]) -> None:
        """Several rules may stand on one line, so that each is known by itself (``id``)."""
        for rule in self.rules:
            if id(rule) in used or rule.optional:
                continue
            covered = next((site for site in sites if rule.covers(site)), None)
            where = rule.where
            if covered is None:
                remedy = _near_selector(rule, sites) or "add when: present if it is for what only some models have"
                raise Problem(where, f"the rule for {rule.selector} matches no site", remedy=remedy)
            first = next(earlier.line for earlier in self.rules if earlier.covers(covered))
            what = f"decides nothing: line {first} decides {covered.path} and all it matches first"
            raise Problem(where, f"the rule for {rule.selector} {what}", remedy="move it up or delete it")


def _near_selector(rule: PolicyRule, sites: Sequence[Site]) -> str:
    """A word that was meant, or nothing where the rule's is one that a model may have."""
    if rule.role in ROLES:
        return ""
    if rule.role is not None:
        return nearest(rule.role, {role for site in sites for role in site.roles} | ROLES)
    if rule.op is not None:
        return nearest(rule.op, {site.op for site in sites})
    return nearest(rule.site or "", [site.path for site in sites])
