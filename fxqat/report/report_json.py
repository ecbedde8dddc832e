"""Every number of the page, for a program to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fxqat.report.collect import Content


def report_json(content: Content) -> dict[str, Any]:
    """For ``fxqat.json_text``: the verdict, what was measured, sites with their decisions, passes, facts; None
    where nothing was measured. Pictures and histograms are left out."""
    found = content.measured
    return {
        "model": content.title,
        "verdict": asdict(content.verdict),
        "metric": found.metric,
        "map5095": {"before": found.before, "after": found.after, "images": content.data, "skipped": content.skipped},
        "drift": asdict(found.drift) if found.drift else None,
        "agreement": asdict(found.agreement) if found.agreement else None,
        "codes": {"codes": found.codes.codes, "differing": found.codes.differing} if found.codes else None,
        "integer_share": found.integer_share,
        "size_share": found.size,
        "errors": found.errors.summary() if found.errors else None,
        "latency": {**found.latency.summary(), "path": found.latency.path.name} if found.latency else None,
        "stages": content.way,
        "policy": [_decided(part) for part in content.breakdown.parts],
        "passes": [{"name": one.name, "says": one.says} for one in content.passes],
        "facts": _facts(content),
    }


def _decided(part: Any) -> Mapping[str, Any]:
    rule, config = part.decision.rule, part.decision.qconfig
    specs = {"weight": str(config.weight or ""), "activation": str(config.activation or "")}
    return {"site": part.site, "op": part.op, **specs, "line": rule.line, "why": rule.why, "macs": part.macs}


def _facts(content: Content) -> Mapping[str, Any]:
    known = content.provenance
    return {"model": dict(known.model), "environment": dict(known.environment), "commands": list(known.commands)}
