"""The small networks stand for whole ones: no operation of a family, and no neighbour of one, is missing in them."""

from __future__ import annotations

import pytest
import small_networks
from torch import fx

import fxqat


def neighbours(gm: fx.GraphModule) -> set[tuple[str, str]]:
    """What gives a tensor and what reads it, of every edge of the graph."""
    return {(kind(gm, one), kind(gm, node)) for node in gm.graph.nodes for one in node.all_input_nodes}


def kind(gm: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    return getattr(node.target, "__name__", str(node.target))


@pytest.mark.parametrize("name", small_networks.FAMILIES)
def test_every_pair_of_operations_of_the_whole_network_is_in_the_small_one(name, tmp_path):
    whole, small = fxqat.load(f"{name}.yaml").gm, fxqat.load(small_networks.write(tmp_path, name)).gm
    assert len(small.graph.nodes) < len(whole.graph.nodes)
    assert neighbours(whole) - neighbours(small) == set()
