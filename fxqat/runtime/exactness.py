"""Exactness: whether runtimes on this machine compute a file, or files for a target, as the integers say."""

from __future__ import annotations

import platform
from pathlib import Path

from fxqat.runtime.onnx.overflow import prove
from fxqat.runtime.processor import processor, saturates
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets.target import Target

REMEDY = "export it for ort-cpu or openvino, whose weights are bounded, or run it on a processor with VNNI"


def inexact_here(path: str | Path, runtime: str = "ort") -> str | None:
    """One line that says why ``runtime`` on this machine does not compute the file exactly, and what to do; None where
    nothing stands in the way.

    Args:
        path: an ONNX file.
        runtime: a name from ``fxqat.runtime.runtimes.RUNTIMES``, installed.
    """
    if Path(path).suffix != ".onnx" or not saturates(runtime):
        return None
    proof = prove(path, RUNTIMES[runtime].pair_orders)
    if proof.holds:
        return None
    title = RUNTIMES[runtime].title
    return (
        f"{Path(path).name}: {title} on this processor ({processor().name}, no VNNI) cannot compute it exactly: 16-bit "
        f"sums can overflow in {len(proof.overflowing)} of {proof.layers} integer layers (first "
        f"{proof.overflowing[0].layer}); {REMEDY}"
    )


def target_here(target: Target) -> tuple[bool | None, str]:
    """Whether this machine computes files for ``target`` exactly, None where its runtime is not here; and why."""
    runtime = RUNTIMES.get(target.runtime)
    if runtime is None:
        return None, f"{target.runtime} does not run here"
    if not runtime.installed:
        return None, f"{runtime.package} is not installed"
    if (why := runtime.differs.get(platform.machine())) is not None:
        return False, why
    if not saturates(runtime.name):
        return True, f"{runtime.title} adds products in 32 bits here"
    if target.pair_orders:
        return True, f"{runtime.title} adds two products in 16 bits here, which its weights never overflow"
    return False, f"{runtime.title} adds two products in 16 bits here, which plain 8-bit weights overflow"
