"""Policies: YAML files that give every site its quantization."""

from fxqat.policy.policy import Policy
from fxqat.policy.rules import Decision, Site, Wanted

__all__ = ["Decision", "Policy", "Site", "Wanted"]
