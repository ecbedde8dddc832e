"""Sections of the reference that are made from the code's own tables, as Markdown."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def command_line() -> str:
    """Every command: what it does, how it is called, its arguments, an example."""
    from fxqat.commands.parser import GROUPS, parser

    words = next(one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    parts: list[str] = []
    for group in GROUPS:
        parts += [f"## {group.title.capitalize()}", _sentence(group.purpose)]
        parts += [_command(command, words.choices[command.name]) for command in group.commands]
    return "\n\n".join(parts)


def _command(command: Any, one: argparse.ArgumentParser) -> str:
    command.arguments(one)
    one.build = None  # type: ignore[attr-defined]
    options = [action for action in one._actions if action.help is not argparse.SUPPRESS]
    rows = [(f"`{_invocation(action)}`", _cell(_help(action))) for action in options]
    parts = (
        f"### {command.name}",
        f"{_sentence(command.help)}",
        _fence("text", one.format_usage().removeprefix("usage: ").strip()),
        table(("argument", "meaning"), rows),
        _fence("shell", command.example),
    )
    return "\n\n".join(parts)


def _invocation(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    words = f" {action.metavar or action.dest.upper()}" if action.nargs != 0 else ""
    return ", ".join(action.option_strings) + words


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default, "prog": "", "dest": action.dest}


def policy_keys() -> str:
    """The keys of a policy and of a rule, from the reader that checks them."""
    from fxqat.policy.reader import POLICY_KEYS, RULE_KEYS

    named = {"policy": POLICY_KEYS, "rule": RULE_KEYS}
    return "\n\n".join(
        table((f"key of a {what}", "meaning"), [(f"`{key}`", _KEYS[what][key]) for key in keys])
        for what, keys in named.items()
    )


# What the reader's keys mean; a key without a meaning here is an error of the build.
_KEYS: Mapping[str, Mapping[str, str]] = {
    "policy": {
        "version": "1",
        "doc": "one line that `fxqat explain` and the report show",
        "extends": "the name or path of another policy: its rules follow this one's, its other keys hold where this "
        "one has none; a spec of this one replaces one of the same name there, also in its rules",
        "target": "the runtime, see [targets](targets.md); `--target` overrules it",
        "specs": "named specs, see below",
        "rules": "a list; the first rule that matches a node decides it",
        "corrections": "a list of corrections that run at calibration",
        "qat": "options of [fxqat train](training.md)",
    },
    "rule": {
        "site": "a glob over paths in the model: `*` within one part of a path, `**` across parts",
        "role": "a role of the node in the network, see below",
        "op": "the operation: `QATConv2d`, `add`, `cat` ...; `fxqat sites MODEL` lists them",
        "weight": "the spec of the weight",
        "activation": "the spec of the layer's output",
        "preactivation": "the spec of the tensor between a convolution and its activation",
        "input": "the spec of a float tensor that the layer reads",
        "float": "`true`: the node stays in float",
        "when": "`present`: the rule may match nothing",
        "why": "the reason, shown by `fxqat explain` and the report",
    },
}


def spec_fields() -> str:
    """The fields of a spec, with their defaults."""
    from fxqat.quant.spec import QuantSpec

    return _options(QuantSpec)


def spec_words() -> str:
    """The words that the fields of a spec take."""
    from fxqat.quant import spec

    named = ("observer", "method", "clip", "through", "scale", "gradient")
    words = (spec.OBSERVERS, spec.METHODS, spec.CLIPS, spec.THROUGH, spec.SCALES, spec.GRADIENTS)
    return table(("field", "values"), [(f"`{name}`", _words(one)) for name, one in zip(named, words, strict=True)])


def roles() -> str:
    """The roles that a rule selects by, and the families that give them."""
    from fxqat.models.roles import ROLES

    return _words(sorted(ROLES))


def corrections() -> str:
    """The corrections, their options and what they do."""
    from fxqat.passes.corrections.registry import CORRECTIONS

    rows = []
    for name, kind in CORRECTIONS.items():
        options = [one for one in fields(kind) if one.name not in ("name", "before_ranges")]
        rows.append((f"`{name}`", first_line(kind), ", ".join(f"`{one.name}: {_default(one)}`" for one in options)))
    return table(("correction", "what it does", "options"), rows)


def training_options() -> str:
    """The options of training."""
    from fxqat.training.config import TrainingConfig

    return _options(TrainingConfig, leave=("data", "loss", "options"))


def loss_options() -> str:
    """The weights of the loss's parts."""
    from fxqat.training.losses import LossConfig

    return _options(LossConfig)


def training_recipe() -> str:
    """Ultralytics' options whose defaults differ, and those that cannot be set."""
    from fxqat.training.config import RECIPE, RESERVED

    given = table(
        ("option of Ultralytics", "default here"), [(f"`{name}`", f"`{one}`") for name, one in RECIPE.items()]
    )
    refused = table(("option that cannot be set", "reason"), [(f"`{name}`", why) for name, why in RESERVED.items()])
    return f"{given}\n\n{refused}"


def targets() -> str:
    """The targets and the form of their integers."""
    from fxqat.targets import TARGETS

    rows = [
        (
            f"`{one.name}`",
            _cell(one.doc),
            f"`{one.activation}`" + (", symmetric" if one.activation.symmetric else ""),
            f"`{one.weight}`",
            "int32" if one.integer_bias else "float",
            f"`{one.suffix}`",
        )
        for one in TARGETS.values()
    ]
    return table(("target", "what it is for", "activations", "weights", "bias", "file"), rows)


def runtimes() -> str:
    """The runtimes in which fxqat verify can run a file."""
    from fxqat.runtime.runtimes import RUNTIMES

    rows = [(f"`{one.name}`", one.title, f"`{one.package}`", f"`{one.suffix}`") for one in RUNTIMES.values()]
    return table(("name", "runtime", "Python package", "file"), rows)


def policies() -> str:
    """The shipped policies."""
    from fxqat.policy import Policy
    from fxqat.policy.resources import shipped

    return table(("policy", "what it decides"), [(f"`{one}`", Policy.load(one).doc) for one in shipped("policies")])


def heads() -> str:
    """The tasks, the head classes that are taken, and those that are refused."""
    from fxqat.models.families import FAMILIES, REFUSED

    taken = [(one.task, ", ".join(f"`{head}`" for head in one.heads), one.metric.title) for one in FAMILIES.values()]
    refused = [(f"`{head}`", why) for head, why in REFUSED.items()]
    return f"{table(('task', 'heads', 'metric'), taken)}\n\n{table(('head that is refused', 'reason'), refused)}"


def operations() -> str:
    """The operations a quantized graph may hold, and where the quantizer of each output comes from."""
    import fxqat.models.trace  # noqa: F401 - blocks and heads bring operations with them
    from fxqat.targets import ORT_CPU

    rows = [(f"`{op}`", place.value) for op, place in ORT_CPU.operations.items()]
    return table(("operation", "quantizer of its output"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_line(kind: Any) -> str:
    """The first sentence of a docstring, on one line."""
    words = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return _cell(re.split(r"(?<=[.;])(?<!et al\.)\s", words)[0].rstrip(";:"))


def attributes(kind: Any) -> dict[str, str]:
    """The ``Attributes:`` of a Google docstring, each on one line."""
    section = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", inspect.getdoc(kind) or "", re.MULTILINE)
    entries = re.findall(r"^    (\w+): ((?:.+\n?)(?:^        .+\n?)*)", section[1] if section else "", re.MULTILINE)
    return {name: _cell(" ".join(text.split())) for name, text in entries}


def _options(kind: Any, leave: Sequence[str] = ()) -> str:
    told = attributes(kind)
    shown = [one for one in fields(kind) if one.name not in leave]
    return table(
        ("field", "default", "meaning"), [(f"`{one.name}`", f"`{_default(one)}`", told[one.name]) for one in shown]
    )


def _default(one: Field[Any]) -> str:
    if one.default is not MISSING:
        return _literal(one.default) or '""'
    return "{}" if one.default_factory is dict else "see below"


def _literal(value: object) -> str:
    """As YAML writes it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _cell(text: str) -> str:
    """Text that stays in its cell of a table, and is no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("``", "`").replace("*", "\\*")


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "command-line": command_line,
    "policy-keys": policy_keys,
    "spec-fields": spec_fields,
    "spec-words": spec_words,
    "roles": roles,
    "corrections": corrections,
    "training-options": training_options,
    "loss-options": loss_options,
    "training-recipe": training_recipe,
    "targets": targets,
    "runtimes": runtimes,
    "policies": policies,
    "heads": heads,
    "operations": operations,
}
