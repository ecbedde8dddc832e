"""The text of a policy's content: YAML that people read, one line a spec and a rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


def policy_text(content: Mapping[str, Any], *, rules: Iterable[str] | None = None, note: str = "") -> str:
    """The YAML of ``content``.

    Args:
        content: of a policy file, all keys.
        rules: the lines of its rules where they are written already.
        note: a comment beside ``rules:``.
    """
    lines = [flow(rule) for rule in content["rules"]] if rules is None else list(rules)
    rest = {key: plain(content[key]) for key in content if key not in {"version", "doc", "specs", "rules"}}
    specs = [f"  {name}: {flow(spec)}" for name, spec in content.get("specs", {}).items()]
    head = [f"version: {content['version']}", f"doc: {quoted(str(content.get('doc', '')))}"]
    head += yaml.safe_dump(rest, sort_keys=False).splitlines() if rest else []
    head += ["specs:", *specs] if specs else []
    title = f"rules:  # {note}" if note else "rules:"
    return "\n".join([*head, title, *(f"  - {line}" for line in lines)]) + "\n"


def quoted(text: str) -> str:
    """``text`` between double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def flow(value: Any) -> str:
    """``value`` as YAML in one line."""
    return yaml.safe_dump(plain(value), default_flow_style=True, sort_keys=False, width=10_000).strip()


def plain(value: Any) -> Any:
    """``value`` without what YAML has no words for: mappings as dicts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
