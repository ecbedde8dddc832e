"""LiteRT on the CPU, with XNNPACK and with its reference kernels."""

from __future__ import annotations

from fxqat.runtime.runtime import Runtime
from fxqat.runtime.tflite import litert_session

# Read in XNNPACK's sources (its qs8-vmul kernels for NEON), not tried: no such machine was at hand.
_MUL_ON_ARM = (
    "XNNPACK's multiplication, as in SiLU, rounds halves up there and to even on x86: single codes may differ by 1"
)

LITERT = Runtime(
    name="litert",
    title="LiteRT",
    package="ai_edge_litert",
    open=lambda content: litert_session.interpreter(content, xnnpack=True),
    suffix=".tflite",
    differs=dict.fromkeys(("aarch64", "arm64", "armv7l"), _MUL_ON_ARM),
)
REFERENCE_KERNELS = Runtime(
    name="litert-plain",
    title="LiteRT, reference kernels",
    package="ai_edge_litert",
    open=lambda content: litert_session.interpreter(content, xnnpack=False),
    suffix=".tflite",
    arithmetic="litert-reference",
)
