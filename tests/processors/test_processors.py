"""Weights within the bound give the same codes on every x86 processor, and one pair above it does not.

Haswell has AVX2 without VNNI; Nehalem has no AVX, so ONNX Runtime takes kernels that widen before they add, where
OpenVINO's add in 16 bits there too.
"""

from __future__ import annotations

import integers
import numpy as np
import onnx
import pytest
import torch
from blocks import BLOCKS, Block, at_the_bound, floats, model, one_above
from emulation import HERE, answers, missing

from fxqat.quant.pair_order import Order
from fxqat.quant.pairs import PAIR_MAX, largest_sums

ORDERS = {"ort": (Order.ROWS,), "openvino": (Order.ROWS, Order.TAPS)}
EMULATED = [(runtime, processor) for runtime in ORDERS for processor in ("Haswell", "Nehalem")]
EVERY = [(runtime, HERE) for runtime in ORDERS] + EMULATED
SATURATES = {("ort", "Haswell"), ("openvino", "Haswell"), ("openvino", "Nehalem")}


def named(word: str) -> str:
    return word.replace(" ", "-")


def read_order(runtime: str, block: Block) -> Order:
    """The one in which the runtime's kernel without VNNI reads the block's filters."""
    return Order.ROWS if runtime == "ort" else block.openvino


def weights(runtime: str) -> dict[str, dict[Block, np.ndarray]]:
    """Of the two files: every pair within the bound, and one of each row one above it."""
    within = {block: at_the_bound(block, ORDERS[runtime]) for block in BLOCKS}
    above = {block: one_above(block, weight, read_order(runtime, block)) for block, weight in within.items()}
    return {"within": within, "above": above}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """``run(runtime, processor)``: (the weights, the codes), each by file and block; a process a pair."""
    seen = {}

    def once(runtime, processor):
        if reason := missing(runtime, processor):
            pytest.skip(reason)
        if (runtime, processor) not in seen:
            folder, given = tmp_path_factory.mktemp(runtime), weights(runtime)
            for name, of_blocks in given.items():
                onnx.save(model(of_blocks), folder / f"{name}.onnx")
            np.savez(folder / "inputs.npz", **{block.name: floats(block) for block in BLOCKS})
            seen[runtime, processor] = given, answers(runtime, processor, folder)
        return seen[runtime, processor]

    return once


@pytest.mark.parametrize(("runtime", "processor"), EVERY, ids=named)
def test_codes_are_exact_with_every_pair_within_the_bound(run, runtime, processor):
    given, codes = run(runtime, processor)
    for block, weight in given["within"].items():
        differing = codes["within"][f"{block.name}.codes"] != integers.codes(block, weight)
        assert np.count_nonzero(differing) == 0, block.name


@pytest.mark.parametrize(("runtime", "processor"), EMULATED, ids=named)
def test_a_pair_one_above_the_bound_is_seen_just_where_kernels_saturate(run, runtime, processor):
    given, codes = run(runtime, processor)
    for block, weight in given["above"].items():
        differing = codes["above"][f"{block.name}.codes"] != integers.codes(block, weight)
        saturates = (runtime, processor) in SATURATES and len(block.pairs(ORDERS[runtime])) > 0
        # 255 * 129 is 128 above 32767: 2 to 4 LSB of each row of the first image, whose activations are all 255
        assert differing[0].reshape(len(weight), -1).any(1).tolist() == [saturates] * len(weight), block.name
        assert saturates or not differing.any(), block.name


@pytest.mark.parametrize("runtime", ORDERS)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_lies_at_the_bound(runtime, block):
    every, read = block.pairs(ORDERS[runtime]), block.pairs([read_order(runtime, block)])
    assert len(read) <= block.weight[0], "each pair is above the bound in a row of its own"
    within = at_the_bound(block, ORDERS[runtime])
    above = one_above(block, within, read_order(runtime, block))
    assert largest(within, every) == (PAIR_MAX if len(every) else 0)
    assert largest(above, read) == (PAIR_MAX + 1 if len(read) else 0)


def largest(weight: np.ndarray, pairs: np.ndarray) -> int:
    return int(largest_sums(torch.from_numpy(weight), torch.from_numpy(pairs)).max())
