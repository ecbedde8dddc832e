"""Which weights a kernel adds in 16 bits, against a simulation of the instruction that does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fxqat.quant.pairs import PAIR_MAX, Order, largest_sums, overflow, pair_indices, partners

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
# Codes beside the bound are what a draw from all of int8 hardly hits.
CODES = st.one_of(st.integers(-128, 127), st.sampled_from([-65, -64, -63, 0, 1, 63, 64, 65]))
WEIGHTS = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=CODES))


def padded(filter_codes: np.ndarray, order: Order) -> list[int]:
    """A filter (C, Kh, Kw) as the bytes that a kernel reads, written as its loops; a lone byte has a zero beside it."""
    channels, height, width = filter_codes.shape
    taps = [(y, x) for y in range(height) for x in range(width)]
    read = list[int]()
    for y, x in taps:
        read += [int(filter_codes[c, y, x]) for c in range(channels)]
        if order is Order.TAPS and len(read) % 2:
            read.append(0)
    return read + [0] * (len(read) % 2)


def saturated(weights: list[int], activations: list[int]) -> int:
    """vpmaddubsw, then vpmaddwd by ones: neighbouring products added and clamped to 16 bits, sums added in 32."""
    products = np.array(weights, np.int64) * np.array(activations, np.int64)
    return int(np.clip(products[0::2] + products[1::2], -32768, 32767).sum())


@given(WEIGHTS, st.sampled_from(Order))
def test_overflow_is_found_just_where_the_instruction_saturates(weight, order):
    # |a| + |b| is largest where the activations are: 255 on the weights of one sign and 0 on the others, or 255 on all.
    wrong = False
    for one in weight:
        read = padded(one, order)
        for chosen in (lambda w: w > 0, lambda w: w < 0, lambda w: True):
            activations = [255 if chosen(code) else 0 for code in read]
            wrong |= saturated(read, activations) != int(np.dot(read, activations))
    found = overflow(torch.from_numpy(weight), pair_indices(weight.shape, [order]))
    assert (found is not None) == wrong
    if found is not None:
        assert found.total == int(weight[(found.row, *found.a)]) + int(weight[(found.row, *found.b)])
        assert abs(found.total) == largest_sums(torch.from_numpy(weight), pair_indices(weight.shape, [order])).max()


@given(WEIGHTS, st.sampled_from(Order), st.data())
def test_no_activation_saturates_what_is_within_the_bound(weight, order, data):
    pairs = pair_indices(weight.shape, [order])
    codes = torch.from_numpy(weight)
    bounded = torch.where(largest_sums(codes, pairs).view(-1, 1, 1, 1) > PAIR_MAX, codes // 2, codes).numpy()
    for one in bounded:
        read = padded(one, order)
        activations = data.draw(st.lists(st.integers(0, 255), min_size=len(read), max_size=len(read)))
        assert saturated(read, activations) == int(np.dot(read, activations))


@given(SHAPES)
def test_pairs_of_a_filter_are_disjoint_within_an_order(shape):
    for order in Order:
        indices = pair_indices(shape, [order]).flatten().tolist()
        assert len(set(indices)) == len(indices)
        channels, taps = shape[1], shape[2] * shape[3]
        assert len(indices) == (channels // 2 * 2 * taps if order is Order.TAPS else channels * taps // 2 * 2)


@given(st.tuples(st.integers(1, 3), st.sampled_from([2, 4, 6]), st.integers(1, 4), st.integers(1, 4)))
def test_both_orders_pair_an_even_number_of_channels_alike(shape):
    assert torch.equal(pair_indices(shape, [Order.TAPS]), pair_indices(shape, [Order.ROWS]))


def test_a_pair_straddles_two_taps_where_channels_are_odd():
    # (c, y, x) of 3 channels and 1 x 2 taps, flat index 2 c + x: bytes 0 2 4 | 1 3 5
    assert pair_indices((1, 3, 1, 2), [Order.ROWS]).tolist() == [[0, 2], [1, 4], [3, 5]]
    assert pair_indices((1, 3, 1, 2), [Order.TAPS]).tolist() == [[0, 2], [1, 3]]


def test_several_orders_are_joined_without_doubles():
    assert pair_indices((1, 3, 1, 2), [Order.ROWS, Order.TAPS]).tolist() == [[0, 2], [1, 3], [1, 4], [3, 5]]


def test_a_linear_layer_pairs_neighbouring_features():
    weight = torch.tensor([[1, 2, 3, 4, 5]])
    for order in Order:
        a, b = partners(weight, pair_indices(weight.shape, [order]))
        assert (a.tolist(), b.tolist()) == ([[1, 3]], [[2, 4]])


@pytest.mark.parametrize(
    ("shape", "groups", "count"), [((8, 1, 3, 3), 8, 0), ((16, 1, 3, 3), 8, 4), ((8, 1, 3, 3), 1, 4)]
)
def test_only_a_depthwise_convolution_has_no_pairs(shape, groups, count):
    assert len(pair_indices(shape, [Order.ROWS], groups=groups)) == count


def test_the_worst_pair_is_named_by_its_place():
    weight = torch.zeros(2, 4, 3, 3, dtype=torch.int8)
    weight[1, 2:4, 0, 1] = torch.tensor([-65, -64], dtype=torch.int8)
    weight[0, 0:2, 2, 2] = torch.tensor([64, 64], dtype=torch.int8)
    found = overflow(weight, pair_indices(weight.shape, [Order.ROWS]))
    assert found is not None
    assert (found.row, found.a, found.b, found.total) == (1, (2, 0, 1), (3, 0, 1), -129)
    weight[1, 2, 0, 1] = -64
    assert overflow(weight, pair_indices(weight.shape, [Order.ROWS])) is None


def test_opposite_signs_need_no_bound():
    assert overflow(torch.tensor([[127, -128]]), pair_indices((1, 2), [Order.ROWS])) is None
