"""Passes as text: what is printed is read again, and what cannot be read is refused in one line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fxqat.graph.pass_text import TextPass, parse_passes, pass_text
from fxqat.graph.pipeline import PassReport, Stage


@dataclass(frozen=True, kw_only=True)
class Move(TextPass):
    """A pass with an option of each kind."""

    sites: str = "**"
    count: int = 1
    share: float = 0.5
    all: bool = False
    name: str = "move"
    requires: Stage | None = None
    gives: Stage | None = None

    def __call__(self, gm):
        return PassReport()


@dataclass(frozen=True, kw_only=True)
class Stop(TextPass):
    """A pass without options."""

    name: str = "stop"
    gives: Stage | None = None

    def __call__(self, gm):
        return PassReport()


KNOWN = {"move": Move, "stop": Stop}
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_a_pass_prints_its_options_by_name():
    assert str(Move(sites="model.0.**", count=3)) == "move{all=false,count=3,share=0.5,sites=model.0.**}"
    assert str(Stop()) == "stop"
    assert str(Move(sites="a, b")) == 'move{all=false,count=1,share=0.5,sites="a, b"}'


@given(st.lists(st.builds(Move, sites=st.text(), count=st.integers(), share=FINITE, all=st.booleans()), max_size=3))
def test_what_is_printed_is_read_again(passes):
    passes = (*passes, Stop())
    assert parse_passes(",".join(map(pass_text, passes)), KNOWN) == passes


def test_spaces_and_defaults():
    assert parse_passes(" move { count = 2 , all=true } , stop ", KNOWN) == (Move(count=2, all=True), Stop())
    assert parse_passes("move{},move", KNOWN) == (Move(), Move())
    assert parse_passes("", KNOWN) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("moove", "moove: unknown pass 'moove'; expected one of: move, stop; did you mean 'move'?"),
        (
            "move{site=a}",
            "move: unknown option 'site'; expected one of: all, count, share, sites; did you mean 'sites'?",
        ),
        ("stop{a=b}", "stop: unknown option 'a'; expected none"),
        ("move{name=x}", "move: unknown option 'name'; expected one of: all, count, share, sites"),
        ("move{count=many}", "move.count: 'many'; expected a value of type int"),
        ("move{all=maybe}", "move.all: 'maybe'; expected a value of type bool"),
        ("move{count=2", "move{count=2: has its end where ',' should be; expected name{key=value,key=value}"),
        ("move{count}", "move{count}: has '}' where '=' should be; expected name{key=value,key=value}"),
        ("move{=2}", "move{=2}: has '=' where a word should be; expected name{key=value,key=value}"),
        ("move stop", "move stop: has 'stop' where ',' should be; expected name{key=value,key=value}"),
        ("move,", "move,: ends in a comma; expected a pass after it"),
        ('move{sites="a}', "move{sites=\"a}: cannot be read from '\"a}' on; expected name{key=value,key=value}"),
    ],
)
def test_what_cannot_be_read(text, words):
    assert refusal(parse_passes, text, KNOWN).startswith(words)
