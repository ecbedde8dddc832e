"""The QuantInfo of a node as data of JSON, and back."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from typing import Any

from fxqat.graph.info import NodeInfo
from fxqat.passes.quant_graph import QuantInfo
from fxqat.policy import Decision, Site
from fxqat.policy.rules import PolicyRule
from fxqat.quant.spec import QConfig, QuantSpec

_SPECS = ("weight", "activation", "preactivation", "input")
_WORDS = ("quantizer", "tensor_name")
_RULE_WORDS = ("site", "role", "op", "why", "file")
_DEFAULTS = {one.name: one.default for one in fields(QuantSpec)}


def write_note(info: NodeInfo) -> dict[str, Any] | None:
    """What ``info`` knows beside site, roles and rule; None for nothing."""
    if not isinstance(info, QuantInfo):
        return None
    told = {name: getattr(info, name) for name in _WORDS} | _write_specs(info)
    if info.decision is not None:
        told["decision"] = _write_decision(info.decision)
    return {key: value for key, value in told.items() if value}


def read_note(data: Any) -> NodeInfo:
    """What ``data`` tells.

    Raises:
        ValueError, TypeError, KeyError: the data is no note.
    """
    told: dict[str, Any] = {name: _text(data[name]) for name in _WORDS if name in data} | _read_specs(data)
    if "decision" in data:
        told["decision"] = _read_decision(data["decision"])
    return QuantInfo(**told)


def write_spec(spec: QuantSpec) -> dict[str, Any]:
    """The fields of ``spec`` that are not the default."""
    told = {name: getattr(spec, name) for name, default in _DEFAULTS.items() if getattr(spec, name) != default}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}


def read_spec(data: Any) -> QuantSpec:
    """The spec of ``data``; one object for equal data, since a graph repeats few of them hundreds of times.

    Raises:
        ValueError, TypeError: it is no legal spec.
    """
    return _spec(json.dumps(data))


@lru_cache(maxsize=1024)
def _spec(words: str) -> QuantSpec:
    told: dict[str, Any] = json.loads(words)
    given: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in told.items()}
    return QuantSpec(**given)


def _write_specs(holder: Any) -> dict[str, Any]:
    found = {name: getattr(holder, name, None) for name in _SPECS}
    return {name: write_spec(spec) for name, spec in found.items() if spec is not None}


def _write_decision(decision: Decision) -> dict[str, Any]:
    site, rule, qconfig = decision.site, decision.rule, decision.qconfig
    words = {name: getattr(rule, name) for name in _RULE_WORDS if getattr(rule, name)}
    overruled = {"overruled": decision.overruled} if decision.overruled else {}
    return overruled | {
        "site": {"path": site.path, "op": site.op, "roles": sorted(site.roles)},
        "rule": {"line": rule.line, **words, **_write_specs(rule)},
        "config": _write_specs(qconfig) | _write_specs(decision),
    }


def _read_specs(data: Any) -> dict[str, Any]:
    return {name: read_spec(data[name]) for name in _SPECS if name in data}


def _read_decision(data: Any) -> Decision:
    site, config = data["site"], _read_specs(data["config"])
    roles = frozenset(map(_text, site["roles"]))
    qconfig = QConfig(**{name: config.pop(name) for name in ("weight", "activation") if name in config})
    place = Site(path=_text(site["path"]), op=_text(site["op"]), roles=roles)
    rule, overruled = _rule(json.dumps(data["rule"])), _text(data.get("overruled", ""))
    return Decision(site=place, rule=rule, qconfig=qconfig, overruled=overruled, **config)


@lru_cache(maxsize=1024)
def _rule(words: str) -> PolicyRule:
    told = json.loads(words)
    given: dict[str, Any] = {name: _text(told[name]) for name in _RULE_WORDS if name in told}
    return PolicyRule(line=int(told["line"]), **given, **_read_specs(told))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} stands where a word should")
    return value
