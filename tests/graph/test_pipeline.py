"""Pipelines: one copy, each pass checked, each difference kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from graph.asking import Named, Residual, noise, traced
from torch import nn

from fxqat.errors import Problem
from fxqat.graph.match import module, value
from fxqat.graph.pipeline import BrokenPromise, Pass, PassReport, Pipeline, Promise, Stage, never
from fxqat.graph.rewrite import NearMiss, Rewrites
from fxqat.graph.site import module_of, site_of
from fxqat.graph.text import diff, text

WITHOUT_SILU = Stage(name="WITHOUT_SILU", promises=(never(module(nn.SiLU, value()), "no SiLU is left"),))


def swap(gm):
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(module_of(node), nn.SiLU):
            gm.add_submodule(str(node.target), nn.ReLU())
            with torch.no_grad():
                gm.conv.weight.zero_()


def test_the_input_stays_as_it_is_and_passes_share_one_copy():
    gm, inputs = traced(Residual()), noise(1, 4, 8, 8)
    before, wanted, seen = text(gm.graph), gm(inputs), []
    out, _ = Pipeline((Named("swap", swap), Named("look", lambda copy: seen.append(copy)))).run(gm)
    assert text(gm.graph) == before
    assert torch.equal(gm(inputs), wanted)
    assert isinstance(gm.act, nn.SiLU)
    assert seen == [out]
    assert isinstance(out.act, nn.ReLU)


def test_the_report_tells_pass_by_pass():
    _, report = Pipeline((Named("nothing", lambda gm: None), Named("swap", swap))).run(traced(Residual()))
    assert [step.name for step in report.steps] == ["nothing", "swap"]
    assert report["nothing"].diff == ""
    assert "-act = SiLU(bn)\n+act = ReLU(bn)\n" in report["swap"].diff
    assert report["swap"].before == report["nothing"].after
    assert report.seconds == sum(step.seconds for step in report.steps) > 0
    assert [line.split()[0] for line in str(report).splitlines()] == ["nothing", "swap"]
    assert [step.name for step in (report + report).steps] == ["nothing", "swap", "nothing", "swap"]


def test_a_kept_promise_is_silent():
    _, report = Pipeline((Named("swap", swap, WITHOUT_SILU),)).run(traced(Residual()))
    assert [one.name for one in report.steps] == ["swap"]


def test_a_broken_promise_is_one_line_with_the_pass_the_site_and_the_line():
    with pytest.raises(BrokenPromise) as caught:
        Pipeline((Named("forget", lambda gm: None, WITHOUT_SILU),)).run(traced(Residual()))
    assert isinstance(caught.value, Problem)
    assert str(caught.value) == (
        "pass forget at act: is still SiLU [act = SiLU(bn)]; expected the stage WITHOUT_SILU: no SiLU is left; "
        "mend the pass, or take it out of the pipeline"
    )


def test_a_promise_also_sees_values_that_others_read():
    class Read(Residual):
        def forward(self, x):
            y = self.bn(self.conv(x))
            return self.act(y) + y

    activated = module(nn.SiLU, module(nn.BatchNorm2d, value()))
    stage = Stage(name="APART", promises=(never(activated, "no SiLU follows a batch norm"),))
    with pytest.raises(BrokenPromise, match=r"^pass nothing at act: is still SiLU"):
        Pipeline((Named("nothing", lambda gm: None, stage),)).run(traced(Read()))


def test_a_stage_is_a_closed_world():
    """What it does not name is refused, not only what it forbids."""
    known = Stage(name="KNOWN", accepts=frozenset({"Conv2d", "BatchNorm2d", "add"}))
    with pytest.raises(BrokenPromise) as caught:
        Pipeline((Named("nothing", lambda gm: None, known),)).run(traced(Residual()))
    assert str(caught.value) == (
        "pass nothing at act: is SiLU [act = SiLU(bn)]; expected the stage KNOWN: nothing but BatchNorm2d, Conv2d, "
        "add; mend the pass, or take it out of the pipeline"
    )
    wider = replace(known, accepts=known.accepts | {"SiLU"})
    Pipeline((Named("nothing", lambda gm: None, wider),)).run(traced(Residual()))


@dataclass(frozen=True)
class Picky:
    """A pass that wants the graph without SiLU."""

    name: str = "picky"
    requires: Stage = WITHOUT_SILU
    gives: None = None

    def __call__(self, gm):
        return PassReport()


def test_what_a_pass_requires_is_checked_before_it():
    with pytest.raises(BrokenPromise) as caught:
        Pipeline((Picky(),)).run(traced(Residual()))
    assert str(caught.value) == (
        "before the pass picky at act: is still SiLU [act = SiLU(bn)]; expected the stage WITHOUT_SILU: "
        "no SiLU is left; run the passes that give it first"
    )
    Pipeline((Named("swap", swap), Picky())).run(traced(Residual()))


def test_a_stage_is_checked_once_where_nothing_changed_since():
    checks = []
    counted = Stage(name="COUNTED", promises=(Promise(says="x", broken=lambda gm: iter(checks.append(1) or ())),))
    picky = Picky(requires=counted)
    Pipeline((Named("give", lambda gm: None, counted), picky, picky)).run(traced(Residual()))
    assert len(checks) == 2, "after the pass that gives it, and after the one that promises nothing"


def test_one_callback_sees_every_gap():
    seen = []

    def look(gap):
        seen.append((gap.done and gap.done.name, gap.coming and gap.coming.name, "SiLU" in text(gap.gm.graph)))

    Pipeline((Named("nothing", lambda gm: None), Named("swap", swap))).run(traced(Residual()), between=look)
    assert seen == [(None, "nothing", True), ("nothing", "swap", True), ("swap", None, False)]


def test_a_broken_graph_is_noticed_at_once():
    def break_it(gm):
        nodes = {site_of(node): node for node in gm.graph.nodes}
        nodes["conv"].args = (nodes["act"],)

    with pytest.raises(RuntimeError, match="before it has been defined"):
        Pipeline((Named("break", break_it), Named("never", pytest.fail))).run(traced(Residual()))


def test_a_pass_is_what_has_a_name_a_stage_and_a_call():
    assert isinstance(Named("a", swap), Pass)
    assert not isinstance(swap, Pass)


def test_misses_stand_deepest_first():
    def missing(depth):
        miss = NearMiss(rule="r", site="s", where="w", reason="because", depth=depth)
        one = Named("n", lambda gm: None)
        report = Pipeline((one,)).run(traced(Residual()))[1]
        object.__setattr__(report.steps[0].report, "rewrites", Rewrites(applied=(), missed=(miss,)))
        return report

    assert [miss.depth for miss in (missing(1) + missing(3) + missing(2)).missed] == [3, 2, 1]


def test_text_names_values_by_site_and_shows_arguments():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            y = torch.clamp(x, min=0.1, max=None)
            return {"y": [y, (y.chunk(2, dim=1), self.scale)], "z": -1.5}

    assert text(traced(Odd()).graph) == (
        "x = input\n"
        "clamp = clamp(x, min=0.1)\n"
        "chunk = chunk(clamp, 2, dim=1)\n"
        "scale = attribute scale\n"
        "return {y: [clamp, (chunk, scale)], z: -1.5}\n"
    )


def test_a_difference_has_no_headers_and_none_is_empty():
    assert diff("a\nb\n", "a\nb\n") == ""
    assert diff("a\nb\n", "a\nc\n") == "@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
