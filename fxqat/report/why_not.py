"""Why a rule did not fire at a site: the pass is run again up to the rule's turn, and the rule tried there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from fxqat.errors import Problem
from fxqat.graph.match import NoMatch, Pattern, match
from fxqat.graph.pipeline import Pipeline
from fxqat.graph.rewrite import Rule, rewrite
from fxqat.graph.site import covers, nearest, operation, site_of
from fxqat.passes import Canonicalize, Rules, fusing, preparing
from fxqat.passes.assign import Assign
from fxqat.passes.calibrate import observe
from fxqat.policy import Policy
from fxqat.targets import TARGETS

_NOISE = (1, 3, 64, 64)  # what rules of lower need of a calibration is that there was one


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a rule did at one site.

    Attributes:
        site: that was asked about.
        fired: the site of what the rule put in, or empty.
        taken: the rule before it in the list that had rewritten the site already, or None.
        where: the node at which the best attempt stopped, or empty.
        reason: what was wrong there.
        depth: how many nodes of the pattern had fitted before.
    """

    site: str
    fired: str = ""
    taken: Rule | None = None
    where: str = ""
    reason: str = ""
    depth: int = 0

    def __str__(self) -> str:
        if self.fired:
            return f"{self.site}: fired, and put in {self.fired}"
        if self.taken:
            return f"{self.site}: {self.taken.name} ({self.taken.source}) stands before it and had taken this node"
        return f"{self.site}: {self.where} {self.reason}"


def why_not(gm: fx.GraphModule, rule: str, glob: str, *, policy: Policy, rules: Rules) -> list[Answer]:
    """Try the rule at every site that ``glob`` covers, or that lies under it, on the graph as the rule meets it.

    Args:
        gm: a float trace, not yet canonical; stays as it is.
        rule: its name.
        glob: a site as it is called before the rule's pass, or a glob.
        policy: decides where the rules of quantize.py and lower.py have something to do.
        rules: the shipped ones and the user's.

    Raises:
        Problem: no such rule, a rule of another target, or a site that is not there, with the nearest name.
    """
    wanted = rules.named(rule)
    graph, before = _ready(gm, wanted, policy, rules)
    targets = _covered(graph, glob)
    around = {node: list(_around(node, _height(wanted.pattern) - 1)) for node in targets}
    taken = _taken(graph, targets, before)
    begun = {node: _begun(wanted.pattern, node) for node in targets if node not in taken}
    tried = _tried(graph, wanted)
    return [
        _answer(_Question(site=site, node=node, taken=taken.get(node), begun=begun.get(node)), around[node], tried)
        for node, site in targets.items()
    ]


def pattern_words(pattern: Pattern) -> str:
    """A pattern along the data flow, such as ``Conv2d -> BatchNorm2d -> SiLU``."""
    inputs = [one for one in pattern.inputs or () if not one.open]
    if not inputs:
        return pattern.describes
    before = " and ".join(pattern_words(one) for one in inputs)
    return f"{f'({before})' if len(inputs) > 1 else before} -> {pattern.describes}"


def _ready(gm: fx.GraphModule, rule: Rule, policy: Policy, rules: Rules) -> tuple[fx.GraphModule, Sequence[Rule]]:
    """The graph as the rule's pass meets it, and the rules that stand before it."""
    quantize = rules.quantizing(policy.target)
    if rule in rules.fuse:
        return Pipeline((Canonicalize(),)).run(gm)[0], _before(rule, rules.fuse)
    if rule in quantize:
        passes = (*fusing(rules).passes, Assign(policy=policy))
        return Pipeline(passes).run(gm)[0], _before(rule, quantize)
    if rule in rules.lower:
        return _calibrated(gm, policy, rules), _before(rule, rules.lower)
    targets = ", ".join(name for name, one in sorted(TARGETS.items()) if rule in rules.quantizing(one))
    raise Problem(
        rule.name,
        f"is a rule for target {targets}, and {policy.name} is for {policy.target.name}",
        remedy="give --policy for that target",
    )


def _calibrated(gm: fx.GraphModule, policy: Policy, rules: Rules) -> fx.GraphModule:
    """Prepared, with ranges from noise: rules look at structure, and only want to find some."""
    prepared = preparing(policy, rules).run(gm)[0]
    noise = torch.rand(_NOISE, generator=torch.Generator().manual_seed(0))
    for _ in observe(prepared, [noise]):
        pass
    return prepared.eval()


def _before(rule: Rule, found: Sequence[Rule]) -> Sequence[Rule]:
    return found[: list(found).index(rule)]


def _covered(gm: fx.GraphModule, glob: str) -> dict[fx.Node, str]:
    sites = {node: site_of(node) for node in gm.graph.nodes if node.op not in {"output", "get_attr"}}
    exact = {node: site for node, site in sites.items() if covers(glob, site)}
    found = exact or {node: site for node, site in sites.items() if covers(f"{glob}.**", site)}
    if not found:
        raise Problem(glob, "covers no site of the graph as the rule meets it", remedy=nearest(glob, sites.values()))
    return found


def _taken(gm: fx.GraphModule, targets: Iterable[fx.Node], before: Sequence[Rule]) -> dict[fx.Node, Rule]:
    """Apply the rules ``before`` in place; which of ``targets`` each took out of the graph."""
    taken = dict[fx.Node, Rule]()
    for rule in before:
        rewrite(gm, (rule,))
        taken.update({node: rule for node in targets if node._erased and node not in taken})
    return taken


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """The rule at one root: what it put in, and the nodes it took, or why it refused."""

    fired: str = ""
    inside: tuple[fx.Node, ...] = ()
    miss: NoMatch | None = None
    where: str = ""


def _tried(gm: fx.GraphModule, rule: Rule) -> dict[fx.Node, _Attempt]:
    """One sweep of the rule, as the pass makes it, and what came of it at each node."""
    found = dict[fx.Node, _Attempt]()
    for node in list(gm.graph.nodes):
        if not node._erased:
            found[node] = _attempt(gm, rule, node)
    return found


def _attempt(gm: fx.GraphModule, rule: Rule, node: fx.Node) -> _Attempt:
    try:
        inside = match(rule.pattern, node).inside
        return _Attempt(inside=inside, fired=site_of(rule.apply(gm, node)))
    except NoMatch as miss:
        return _Attempt(miss=miss, where=site_of(miss.node))


@dataclass(frozen=True, kw_only=True)
class _Question:
    site: str
    node: fx.Node
    taken: Rule | None
    begun: Answer | None


def _answer(asked: _Question, around: Sequence[fx.Node], tried: dict[fx.Node, _Attempt]) -> Answer:
    fired = next((one for one in tried.values() if asked.node in one.inside), None)
    if fired:
        return Answer(site=asked.site, fired=fired.fired)
    if asked.taken:
        return Answer(site=asked.site, taken=asked.taken)
    found = [
        Answer(site=asked.site, where=one.where, reason=one.miss.reason, depth=one.miss.depth)
        for one in map(tried.get, around)
        if one and one.miss
    ]
    return max([*found, asked.begun or found[0]], key=lambda one: one.depth)


def _begun(pattern: Pattern, node: fx.Node) -> Answer | None:
    """How far the pattern goes along the data flow from ``node``, where one of its nodes but the last fits there."""
    ways = [_followed(way, node) for way in _ways(pattern) if way[0].accepts(node)]
    return max(ways, key=lambda one: one.depth, default=None)


def _followed(way: tuple[Pattern, ...], node: fx.Node) -> Answer:
    site, depth = site_of(node), 1
    for wanted in way[1:]:
        users = list(node.users)
        node = next((user for user in users if wanted.accepts(user)), node)
        if node not in users:
            then = f"{site_of(users[0])} is {operation(users[0])}" if users else "nothing follows"
            reason = f"is {operation(node)}, as it should be; then {then}, not {wanted.describes}"
            return Answer(site=site, where=site_of(node), reason=reason, depth=depth)
        depth += 1
    return Answer(site=site, where=site_of(node), reason="is where the pattern ends", depth=0)


def _ways(pattern: Pattern) -> Iterator[tuple[Pattern, ...]]:
    """From each closed node of a pattern along the data flow to its end, that end left out."""
    for one in pattern.inputs or ():
        if not one.open:
            yield (one, pattern)
            yield from ((*way, pattern) for way in _ways(one))


def _around(node: fx.Node, steps: int) -> Iterator[fx.Node]:
    """The node, and what it flows into within so many steps: a pattern that covers the node ends at one of them."""
    yield node
    if steps > 0:
        for user in node.users:
            yield from _around(user, steps - 1)


def _height(pattern: Pattern) -> int:
    """How many nodes deep a pattern is, its open edges left out."""
    if pattern.choices:
        return max(map(_height, pattern.choices))
    return 0 if pattern.open else 1 + max(map(_height, pattern.inputs or ()), default=0)
