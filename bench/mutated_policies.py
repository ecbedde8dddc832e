"""Policies that somebody changed: every one is a decision for each site, or a refusal of one line.

    python -m bench.mutated_policies [--count 10000] [--seed 0] [--json FILE]

Each trial changes a shipped policy in one to three places: a value, a key or an entry of its YAML, or characters and
lines of its text. It is read, and where it can be, decides the sites of a small detector.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from bench.command import parser, run
from bench.damaged_checkpoints import ARCHITECTURE
from fxqat.errors import Problem
from fxqat.models.load import build
from fxqat.models.trace import trace
from fxqat.passes import Rules, fusing
from fxqat.passes.assign import Assign
from fxqat.policy import Policy
from fxqat.policy.resources import find, shipped
from fxqat.targets import TARGETS

Dice = random.Random
_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 4, 8, 33, 10**30, 0.5, float("nan"), float("inf")),
    *("", " ", "x", "**", "*", "[", "[!]"),
    *("model.**", "a..b", "\n", "\u00e9\u0301", "x" * 5000, "__class__", "yes", "1e3", [], [[]], {}, {"a": {}}, [None]),
    *(["**"], {"bits": 8}, "mse", "histogram", "through", "silu", "uint8", "no: [", "2026-01-01"),
)
_NOISE = "\t\n\x00\x07:-[]{}#&*!|>'\"%@`,?~\u2028\ud7ff \ufeff"
_KEYS = (
    *("site", "role", "op", "float", "weight", "activation", "bits", "observer", "method"),
    *("extends", "target", "qat", "<<", "x"),
)


def main() -> int:
    """Print the table."""
    options = parser("mutated_policies", __doc__)
    options.add_argument("--count", type=int, default=10_000, help="trials in all (default 10000)")
    options.add_argument("--seed", type=int, default=0, help="of the changes (default 0)")
    return run(options.parse_args(), measure)


def measure(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count the outcomes of each kind of change, and print them.

    Raises:
        Problem: a trial ended in anything but a decision or a line.
    """
    counts = trials(options.count, options.seed)
    words = ("unreadable", "unfit", "decided", "wrong")
    print("| changed | refused when read | refused for the sites | decided | wrong |\n| --- | --- | --- | --- | --- |")
    for kind, row in counts.items():
        print(f"| {kind} | {' | '.join(str(row[word]) for word in words)} |")
    if wrong := sum(row["wrong"] for row in counts.values()):
        raise Problem("mutated_policies", f"{wrong} trials ended in no line", remedy="see above")
    return {kind: dict(row) for kind, row in counts.items()}


def trials(count: int, seed: int) -> dict[str, Counter[str]]:
    """``count`` changed policies, read one after another.

    Returns:
        For each kind of change, how many were ``unreadable``, ``unfit`` for the sites, how many ``decided``, and how
        many raised anything beside a Problem of one line, which is ``wrong``.
    """
    dice, graph = Dice(seed), fusing(Rules.load()).run(trace(build(ARCHITECTURE)[0]))[0]
    texts = [find("policies", name).read_text(encoding="utf-8") for name in shipped("policies")]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in CHANGES}
    for trial in range(count):
        kind = list(CHANGES)[trial % len(CHANGES)]
        text = CHANGES[kind](dice.choice(texts), dice)
        counts[kind][_judged(text, graph, f"trial {trial}, {kind}")] += 1
    return counts


def _judged(text: str, graph: Any, title: str) -> str:
    """As ``outcome``; ``wrong`` where it raises anything, which is printed."""
    try:
        return outcome(text, graph)
    except Exception:
        print(f"{title}:\n{text}\n{traceback.format_exc(limit=-3)}", flush=True)
        return "wrong"


def outcome(text: str, graph: Any) -> str:
    """``unreadable``, ``unfit`` for the graph's sites, or ``decided``.

    Raises:
        Problem: the refusal has several lines.
    """
    word = "unreadable"
    try:
        policy = Policy.parse(text, "changed.yaml")
        word = "unfit"
        Assign(policy=policy)(copy.deepcopy(graph))
    except Problem as problem:
        if "\n" in str(problem):
            raise
        return word
    return "decided"


def change_values(text: str, dice: Dice) -> str:
    """One to three values of the YAML replaced."""
    content = yaml.safe_load(text)
    for _ in range(dice.randint(1, 3)):
        part = dice.choice(_parts(content))
        keys = list(part) if isinstance(part, dict) else range(len(part))
        if keys:
            part[dice.choice(list(keys))] = copy.deepcopy(dice.choice([*_VALUES, *TARGETS]))
    return str(yaml.safe_dump(content, allow_unicode=True))


def change_keys(text: str, dice: Dice) -> str:
    """A key taken out, put in or renamed."""
    content = yaml.safe_load(text)
    part = dice.choice([one for one in _parts(content) if isinstance(one, dict)])
    taken = part.pop(dice.choice(list(part))) if part and dice.random() < 0.7 else dice.choice(_VALUES)
    if dice.random() < 0.7:
        part[dice.choice((*_KEYS, *_VALUES[:12]))] = copy.deepcopy(taken)
    return str(yaml.safe_dump(content, allow_unicode=True))


def change_entries(text: str, dice: Dice) -> str:
    """An entry of a list taken out, doubled, or put elsewhere."""
    content = yaml.safe_load(text)
    part = dice.choice([one for one in _parts(content) if isinstance(one, list)] or [content.get("rules", [])])
    if part:
        entry = part[dice.randrange(len(part))]
        if dice.random() < 0.5:
            part.remove(entry)
        if dice.random() < 0.7:
            part.insert(dice.randrange(len(part) + 1), copy.deepcopy(entry))
    return str(yaml.safe_dump(content, allow_unicode=True))


def change_characters(text: str, dice: Dice) -> str:
    """One to four characters put in, taken out or replaced."""
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(text) + 1)
        text = text[:place] + dice.choice(("", dice.choice(_NOISE))) + text[place + dice.randrange(2) :]
    return text


def change_lines(text: str, dice: Dice) -> str:
    """Lines exchanged, indented, cut off or doubled."""
    lines = text.splitlines(keepends=True)
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    way = dice.randrange(4)
    if way == 0:
        lines[a], lines[b] = lines[b], lines[a]
    elif way == 1:
        lines[a] = "  " + lines[a]
    elif way == 2:
        lines[a] = lines[a][: dice.randrange(len(lines[a]))]
    else:
        lines.insert(b, lines[a])
    return "".join(lines)


def _parts(content: Any) -> list[Any]:
    """Every mapping and list in ``content``, itself among them."""
    if isinstance(content, dict):
        inner: Sequence[Any] = list(content.values())
    else:
        inner = content if isinstance(content, list) else []
    own = [content] if isinstance(content, dict | list) else []
    return own + [part for one in inner for part in _parts(one)]


CHANGES: Mapping[str, Callable[[str, Dice], str]] = {
    "values": change_values,
    "keys": change_keys,
    "entries": change_entries,
    "characters": change_characters,
    "lines": change_lines,
}

if __name__ == "__main__":
    sys.exit(main())
