"""The entries of a policy: rules that select sites, what they decide, and corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fxqat.graph.site import covers
from fxqat.quant.spec import QConfig, QuantSpec


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a rule can select by: a site's path, the word for its operation, and its roles in the network."""

    path: str
    op: str
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PolicyRule:
    """One entry of ``rules``: the keys that match, the specs that act, the reason, and where it stands.

    Attributes:
        line: of the file.
        file: name of the file, which may be one that the policy extends.
        optional: it may decide nothing (``when: present``): it is for what only some models have.
    """

    line: int
    file: str = ""
    optional: bool = False
    site: str | None = None
    role: str | None = None
    op: str | None = None
    weight: QuantSpec | None = None
    activation: QuantSpec | None = None
    preactivation: QuantSpec | None = None
    input: QuantSpec | None = None
    why: str = ""

    def covers(self, site: Site) -> bool:
        """Whether every selector that is given holds for ``site``."""
        return (
            (self.site is None or covers(self.site, site.path))
            and (self.role is None or self.role in site.roles)
            and (self.op is None or self.op == site.op)
        )

    @property
    def where(self) -> str:
        """``file:line``; line 0 stands for no file, but what gave the name."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def selector(self) -> str:
        """The selectors as they stand in the file."""
        pairs = (("site", self.site), ("role", self.role), ("op", self.op))
        return ", ".join(f"{key}: {value}" for key, value in pairs if value is not None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a policy decided for one site, by which rule, and the reason where the target decided otherwise."""

    site: Site
    rule: PolicyRule
    qconfig: QConfig
    preactivation: QuantSpec | None = None
    input: QuantSpec | None = None
    overruled: str = ""

    @property
    def why(self) -> str:
        """The reason."""
        return self.overruled or self.rule.why


@dataclass(frozen=True, kw_only=True)
class CorrectionEntry:
    """One entry of ``corrections``: a name, its options, and where it stands."""

    line: int
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def where(self) -> str:
        """``file:line``, or what named it where no file did (line 0)."""
        return f"{self.file}:{self.line}" if self.line else self.file
