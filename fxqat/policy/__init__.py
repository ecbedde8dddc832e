"""Policies: YAML files that give every site its quantization."""

from fxqat.policy.policy import Decision, Policy, Site, Wanted

__all__ = ["Decision", "Policy", "Site", "Wanted"]
