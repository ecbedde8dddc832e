"""Policies: YAML files that give every site its quantization."""

from fxqat.policy.policy import Policy
from fxqat.policy.rules import CorrectionEntry, Decision, Site

__all__ = ["CorrectionEntry", "Decision", "Policy", "Site"]
