"""prepare: from a float detector to one with quantizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fxqat.checkpoint.model_io import load
from fxqat.checkpoint.network import described, records
from fxqat.graph.pass_text import parse_passes
from fxqat.graph.pipeline import Between, Pass, Pipeline, Report
from fxqat.models.detector import Detector
from fxqat.passes import Rules, fusing, quantizing
from fxqat.passes.corrections.registry import corrections
from fxqat.policy import Policy
from fxqat.policy.resources import DEFAULT_POLICY
from fxqat.quant.torch_ao import disable_observer
from fxqat.workflow.stage_checks import expect

Files = Sequence[str | Path]
Progress = Callable[[int, int], None]


def prepare(
    model: Detector | str | Path,
    policy: str | Path | Policy = DEFAULT_POLICY,
    *,
    target: str | None = None,
    patterns: Files = (),
    passes: Sequence[Pass] | str = (),
    between: Between | None = None,
) -> tuple[Detector, Report]:
    """Fuse the model and insert the policy's quantizers; they refuse to run until they are calibrated.

    Args:
        model: a float detector, or what ``load`` takes.
        policy: a policy, its path, or the name of a shipped one.
        target: the runtime to prepare for, instead of the policy's: ``ort-cpu``, ``openvino`` ..., see
            ``fxqat.targets.TARGETS``.
        patterns: rule files of your own; their rules come before the shipped ones.
        passes: passes of your own, run on the fused graph before the policy is applied; or their text, such as
            ``swap_activation{sites=model.0.**,to=relu}``, which may name those of ``patterns``.
        between: called between any two passes.

    Returns:
        A new detector at stage ``qat``, and what each pass did.
    """
    detector = model if isinstance(model, Detector) else load(model)
    expect(detector, "float", "prepare")
    if not isinstance(policy, Policy):
        policy = Policy.load(policy, target=target)
    elif target is not None:
        policy = Policy.parse(policy.text, policy.name, target=target)
    rules = Rules.load(*patterns)
    corrections(policy)  # what calibrate would refuse is refused now
    passes = parse_passes(passes, rules.passes) if isinstance(passes, str) else passes
    first, last = fusing(rules, passes), quantizing(policy, rules)
    gm, report = first.run(detector.gm, between)
    network = described(gm)
    report += last.apply(gm, between)
    gm.apply(disable_observer)
    changes: dict[str, Any] = {
        "stage": "qat",
        "policy_name": policy.name,
        "policy_text": policy.text,
        "target": policy.target.name,
        "patterns": rules.files,
        "passes": records(Pipeline((*first.passes, *last.passes)), report),
    }
    recipe = replace(detector.recipe, **changes)
    return Detector(gm, detector.source, recipe, network, label=detector.label).train(gm.training), report
