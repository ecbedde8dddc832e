"""Passes as text, both ways: ``swap_activation{sites=model.0.**,to=relu}``.

A pass that is a frozen dataclass prints its name and its options, in the order of their names; a pass whose options are
words and numbers can be made of that text again. Passes follow one another with commas between them::

    passes  = pass ("," pass)*
    pass    = name ["{" [option ("," option)*] "}"]
    option  = key "=" (word | quoted)        a word holds none of , { } = " and no space; quoted as in JSON
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from fxqat.errors import Problem
from fxqat.graph.pipeline import Pass
from fxqat.graph.site import nearest

PassMaker = Callable[..., Pass]
_NOT_OPTIONS = frozenset({"name", "requires", "gives"})
_TOKEN = re.compile(r'\s*(?:([,{}=])|("(?:[^"\\]|\\.)*")|([^\s,{}="]+))')


def pass_text(one: Pass) -> str:
    """The text of a pass: its name and, of a dataclass, its options."""
    options = [f"{key}={_word(value)}" for key, value in sorted(_options(one).items())]
    return f"{one.name}{{{','.join(options)}}}" if options else one.name


def parse_passes(text: str, known: Mapping[str, PassMaker]) -> tuple[Pass, ...]:
    """The passes that ``text`` describes, made by those in ``known``, which are dataclasses by their passes' names.

    Raises:
        Problem: an unknown pass or option, a value of another type, or text that does not follow the grammar.
    """
    tokens = list(_tokens(text))
    made: list[Pass] = []
    while tokens:
        made.append(_pass(tokens, known, text))
        if tokens:
            _expect(tokens, ",", text)
            if not tokens:
                raise Problem(text, "ends in a comma", expected="a pass after it")
    return tuple(made)


class TextPass:
    """Base of passes that are dataclasses: they print as they are parsed."""

    def __str__(self) -> str:
        return pass_text(self)  # type: ignore[arg-type]


def _options(one: Pass) -> dict[str, Any]:
    if not is_dataclass(one):
        return {}
    return {field.name: getattr(one, field.name) for field in fields(one) if field.name not in _NOT_OPTIONS}


def _word(value: Any) -> str:
    """One value: words as they are where they can be, else quoted; things with a name by their name."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return "+".join(map(_word, value))
    text = str(getattr(value, "name", value))
    return text if re.fullmatch(r'[^\s,{}="]+', text) else json.dumps(text)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise Problem(text, f"cannot be read from {text[at:].strip()!r} on", expected="name{key=value,key=value}")
        yield found.group().strip()
        at = found.end()


def _pass(tokens: list[str], known: Mapping[str, PassMaker], text: str) -> Pass:
    name = _next(tokens, text)
    if name not in known:
        expected = f"one of: {', '.join(known)}"
        raise Problem(text, f"unknown pass {name!r}", expected=expected, remedy=nearest(name, known))
    options: dict[str, Any] = {}
    if tokens[:1] == ["{"]:
        tokens.pop(0)
        while tokens[:1] != ["}"]:
            if options:
                _expect(tokens, ",", text)
            key = _next(tokens, text)
            _expect(tokens, "=", text)
            options[key] = _next(tokens, text)
        tokens.pop(0)
    return known[name](**_typed(name, known[name], options))


def _typed(name: str, maker: Any, options: Mapping[str, str]) -> dict[str, Any]:
    """The options as the dataclass ``maker`` wants them."""
    types = get_type_hints(maker)
    legal = {field.name: types[field.name] for field in fields(maker) if field.name not in _NOT_OPTIONS}
    for key in options:
        if key not in legal:
            expected = f"one of: {', '.join(sorted(legal))}" if legal else "none"
            raise Problem(name, f"unknown option {key!r}", expected=expected, remedy=nearest(key, legal))
    return {key: _value(f"{name}.{key}", text, legal[key]) for key, text in options.items()}


def _value(where: str, text: str, kind: Any) -> Any:
    text = json.loads(text) if text.startswith('"') else text
    readers: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float, bool: _truth}
    if kind not in readers:
        raise Problem(where, "is no option that text can give", expected="a word or a number")
    try:
        return readers[kind](text)
    except (ValueError, KeyError) as error:
        raise Problem(where, repr(text), expected=f"a value of type {kind.__name__}") from error


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _next(tokens: list[str], text: str) -> str:
    if not tokens or tokens[0] in ",{}=":
        found = repr(tokens[0]) if tokens else "its end"
        raise Problem(text, f"has {found} where a word should be", expected="name{key=value,key=value}")
    return tokens.pop(0)


def _expect(tokens: list[str], token: str, text: str) -> None:
    if tokens[:1] != [token]:
        found = repr(tokens[0]) if tokens else "its end"
        raise Problem(text, f"has {found} where {token!r} should be", expected="name{key=value,key=value}")
    tokens.pop(0)
