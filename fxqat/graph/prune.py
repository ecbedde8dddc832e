"""Taking out of a GraphModule what no node uses."""

from __future__ import annotations

from itertools import accumulate

from torch import fx


def drop_unused_modules(gm: fx.GraphModule) -> None:
    """Delete every submodule path that no node calls or reads.

    Unlike fx's own, it also deletes the second path of a module that is in use under another: a batch norm that went
    into a fused layer would otherwise be saved twice.
    """
    targets = {str(node.target) for node in gm.graph.nodes if node.op in {"call_module", "get_attr"}}
    called = tuple(f"{node.target}." for node in gm.graph.nodes if node.op == "call_module")
    used = {prefix for target in targets for prefix in accumulate(target.split("."), "{}.{}".format)}
    paths = [path for path, _ in gm.named_modules(remove_duplicate=False) if path]
    for path in paths:
        if path not in used and not path.startswith(called):
            gm.delete_submodule(path)
