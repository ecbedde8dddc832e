"""Writer of the policy that a search found: the base policy's rules, and above them one for each part in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import yaml

from fxqat.graph.site import covers
from fxqat.policy import Policy, Site
from fxqat.policy.policy_text import flow, policy_text, quoted

Why = Callable[[Sequence[str]], str]


def written(
    base: Policy, doc: str, follow: Sequence[str], kept: Collection[str], why: Why, sites: Sequence[Site]
) -> str:
    """The YAML of ``base`` with the sites ``follow`` in float.

    Args:
        base: the policy to start from.
        doc: what stands on top.
        follow: sites in float.
        kept: sites still quantized.
        why: the reason for leaving a part of ``follow`` in float.
        sites: all that a policy decides.
    """
    content: dict[str, Any] = yaml.safe_load(base.text)
    globs = _globs(follow, kept)
    lines = [f"{{site: {quoted(glob)}, float: true, why: {quoted(why(taken))}}}" for glob, taken in globs]
    left = [site for site in sites if not any(covers(glob, site.path) for glob, _ in globs)]
    for rule, raw in zip(base.rules, content["rules"], strict=True):
        mine = [site for site in left if rule.covers(site)]
        left = [site for site in left if not rule.covers(site)]
        if mine:
            raw.setdefault("why", f"{sum(site.path in kept for site in mine)} sites in INT8, where float costs time")
            lines.append(flow(raw))
    return policy_text({**content, "doc": doc}, rules=lines, note="the first that matches a site decides it")


def _globs(follow: Sequence[str], kept: Collection[str]) -> list[tuple[str, list[str]]]:
    """Few globs that cover ``follow`` and nothing of ``kept``, each with what it takes of ``follow``."""
    found: list[tuple[str, list[str]]] = []
    waiting = list(follow)
    while waiting:
        site = waiting[0]
        glob = next((glob for glob in _wider(site) if not any(covers(glob, other) for other in kept)), site)
        taken = [other for other in waiting if covers(glob, other)]
        found.append((glob, taken))
        waiting = [other for other in waiting if other not in taken]
    return found


def _wider(site: str) -> Iterable[str]:
    parts = site.split(".")
    return (".".join([*parts[:length], "**"]) for length in range(2, len(parts)))
