"""Names of codes: those with an order of axes say how to go back, and any other text is a name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxqat.runtime.reference.tensor_names import PERMUTED, back, permuted

ORDERS = st.integers(1, 5).flatmap(lambda rank: st.permutations(range(rank))).map(tuple)


@given(order=ORDERS)
def test_the_way_back_undoes_the_order(order):
    graph = np.zeros([2 + axis for axis in range(len(order))])  # every axis has a length of its own
    held = graph.transpose(order)
    name, way = back(permuted("model.0.codes", order), len(order))
    assert name == "model.0.codes"
    assert held.transpose(way).shape == graph.shape


@pytest.mark.parametrize("tail", ["", "0.2>1", "0.2", "1.2.3", "0.0.1", "0..1", "²", "0.1.permuted.1.0"])
def test_what_ends_in_no_order_is_a_name_like_any_other(tail):
    name = f"model.0.codes{PERMUTED}{tail}"
    assert back(name, 3) == (name, (0, 1, 2))


@given(name=st.text(), rank=st.integers(0, 5))
def test_no_text_stops_it(name, rank):
    found, way = back(name, rank)
    assert name.startswith(found)
    assert sorted(way) == list(range(len(way)))
