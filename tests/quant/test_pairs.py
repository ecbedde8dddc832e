"""Which weights a kernel adds in 16 bits, against a simulation of the instruction that does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import (
    PAIR_MAX,
    bounding_weights,
    largest_sums,
    least_scale,
    lower_overflowing,
    overflow,
    pair_indices,
    pair_sums,
    partners,
)
from fxqat.quant.pixel_groups import group_size, grouped_kernel

DIRECT = (Order.ROWS, Order.TAPS)  # of the convolution as the model has it

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


@given(WEIGHTS, st.sampled_from(DIRECT))
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


@given(WEIGHTS, st.sampled_from(DIRECT), st.data())
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
    for order in DIRECT:
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
    for order in DIRECT:
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


@given(
    st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 3, 5]), st.integers(1, 3), st.integers(1, 4)).flatmap(
        lambda shape: hnp.arrays(np.int8, shape, elements=CODES)
    ),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_pixels_are_the_pairs_of_the_arranged_convolution(weight, stride, padding):
    kernel, _, _ = grouped_kernel(weight, group_size(weight.shape[1], stride), stride, padding)
    arranged = overflow(torch.from_numpy(kernel), pair_indices(kernel.shape, [Order.ROWS]))
    found = overflow(
        torch.from_numpy(weight), pair_indices(weight.shape, [Order.PIXELS], stride=stride, padding=padding)
    )
    assert (found and abs(found.total)) == (arranged and abs(arranged.total))


def test_channels_by_fours_are_not_arranged():
    assert len(pair_indices((8, 4, 3, 3), [Order.PIXELS])) == 0


FLOATS = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-1e3, 1e3, width=32)))


def rounded(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round()


@given(FLOATS, st.sets(st.sampled_from(Order), min_size=1))
def test_the_least_scale_keeps_the_bound_and_no_smaller_one_does(weight, orders):
    codes, pairs = torch.from_numpy(weight), pair_indices(weight.shape, list(orders))
    scale = least_scale(codes, pairs)
    assert scale.shape == (len(weight),)
    # Below 1e-30 float32 has no digits left to divide; a scale under the range's own (largest code 127) is not used.
    used = (scale > 1e-30) & (scale >= codes.flatten(1).abs().amax(1) / 127)
    for row, least in zip(codes[used], scale[used], strict=True):
        assert largest_sums(rounded(row[None], least), pairs) <= PAIR_MAX
        # 2**-20 of the scale is for float32's division, see pair_scales
        assert largest_sums(rounded(row[None], least * (1 - 2.0**-19)), pairs) > PAIR_MAX


@given(FLOATS)
def test_what_decides_a_scale_decides_it_alone(weight):
    codes, pairs = torch.from_numpy(weight), pair_indices(weight.shape, [Order.ROWS, Order.TAPS])
    scale = least_scale(codes, pairs)
    deciding = bounding_weights(codes, pairs, scale)
    alone = torch.where(deciding, codes, 0.0)
    assert torch.equal(least_scale(alone, pairs), scale)
    assert not bounding_weights(codes, pairs, scale.clamp(min=1e-30) * 2).any()


@given(WEIGHTS, st.sampled_from(Order), st.randoms())
def test_overflowing_codes_are_lowered_and_no_others(weight, order, random):
    codes, pairs = torch.from_numpy(weight).float(), pair_indices(weight.shape, [order])
    exact = codes + torch.tensor([random.uniform(-0.5, 0.5) for _ in range(weight.size)]).view(weight.shape)
    lowered = lower_overflowing(codes, exact, pairs, torch.zeros_like(codes, dtype=torch.bool))
    assert not len(pairs) or pair_sums(lowered, pairs).max() <= PAIR_MAX
    over = torch.zeros(weight[0].size, dtype=torch.bool)
    for row, new, old in zip(pair_sums(codes, pairs) > PAIR_MAX, lowered.flatten(1), codes.flatten(1), strict=True):
        touched = over.clone()
        touched[pairs[row].flatten()] = True
        assert torch.equal(new[~touched], old[~touched])
    assert (lowered.abs() <= codes.abs()).all()


def test_of_an_overflowing_pair_the_code_that_was_raised_more_is_lowered():
    codes, exact = torch.tensor([[65.0, 64.0], [-64.0, -65.0]]), torch.tensor([[64.9, 63.2], [-63.9, -64.1]])
    pairs = pair_indices((2, 2), [Order.ROWS])
    free = torch.zeros(2, 2, dtype=torch.bool)
    assert lower_overflowing(codes, exact, pairs, free).tolist() == [[65, 63], [-64, -64]]
    held = torch.tensor([[False, True], [False, False]])
    assert lower_overflowing(codes, exact, pairs, held).tolist() == [[64, 64], [-64, -64]]
