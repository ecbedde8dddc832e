"""What can be done with a quantized model, in words: what ``fxqat.report.decision`` chooses among."""

from __future__ import annotations

MEASURE = "measure"
RUNTIME = "look at the runtime"
TARGET = "choose another target"
SHIP = "ship it"
FLOAT = "keep layers in float"
CORRECT = "correct the biases"
TRAIN = "train it"
SEARCH = "search a policy"
