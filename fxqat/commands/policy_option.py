"""The policy that ``--policy`` names."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fxqat.policy import Policy


def policy_of(options: Namespace) -> Policy:
    """The policy, for the target of ``--target`` where there is one; also the sections that calibration and training
    will read are checked.

    Raises:
        Problem: with ``file:line``.
    """
    from fxqat.passes.corrections.registry import corrections
    from fxqat.policy import Policy
    from fxqat.training.config import check_section

    policy = Policy.load(options.policy, target=getattr(options, "target", None))
    corrections(policy)
    check_section(policy.options.get("qat"), policy.name)
    return policy
