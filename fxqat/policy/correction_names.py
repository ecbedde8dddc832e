"""Names of the corrections, as a policy's ``corrections:`` and ``fxqat calibrate --correct`` take them."""

from __future__ import annotations

# In a file without torch: the command line's help lists them.
EQUALIZE = "equalize"
ADAROUND = "adaround"
BIAS_CORRECTION = "bias_correction"
BN_REESTIMATE = "bn_reestimate"
NAMES = (EQUALIZE, ADAROUND, BIAS_CORRECTION, BN_REESTIMATE)
