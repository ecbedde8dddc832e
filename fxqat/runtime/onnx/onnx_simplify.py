"""Constants folded and unused parts dropped from what torch.onnx writes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants


def simplify(model: ir.Model) -> None:
    """Fold constants, share equal ones and drop what nothing reads, in place.

    These are the passes of onnxscript's ``optimize_ir`` without its rewrite rules and its inference of shapes, which
    took a third of an export, and which change nothing in graphs of fixed sizes but a Reshape behind a Reshape.
    """
    common.InlinePass()(model)
    fold_constants(model, onnx_shape_inference=False)
    for one in (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        one(model)
