"""The share of codes that may differ between the reference and a runtime."""

from __future__ import annotations

# Of all codes. Those that are quantized behind float operations (attention) can fall on the other side of a tie, since
# runtimes add in other orders. In a file without torch: the command line's help shows it.
BOUND = 1e-6
