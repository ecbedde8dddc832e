"""Batches given in Python: what is taken, what is converted, and the line that refuses the rest."""

# ruff: noqa: E501  (one message a line, as it is printed)

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from refusals import refusal

import fxqat
from fxqat.data.batches import Batches
from fxqat.quant.torch_ao import disable_observer

GOOD = torch.full((2, 3, 32, 64), 0.5)


def read(*given: object) -> list[torch.Tensor]:
    return list(Batches(given=given))


def test_floats_pass_as_they_are_and_bytes_are_divided_by_255():
    codes = torch.arange(256, dtype=torch.uint8).repeat(3 * 4).view(1, 3, 32, 32)
    first, second = read(GOOD, codes)
    assert first is GOOD
    assert second.dtype == torch.float32
    assert torch.equal((second * 255).round().to(torch.uint8), codes)
    assert (float(second.min()), float(second.max())) == (0.0, 1.0)


def test_a_rounding_error_beyond_0_and_1_is_none():
    assert len(read(GOOD * 0 - 1e-6, GOOD * 2 + 1e-6)) == 2


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (GOOD * 510, "batch 1: holds values from 255 to 255; expected values in 0..1; divide it by 255"),
        (GOOD - 2.0, "batch 1: holds values from -1.5 to -1.5; expected values in 0..1; undo its normalisation (mean and standard deviation)"),
        (GOOD * torch.nan, "batch 1: holds NaN or infinity; expected values in 0..1"),
        (GOOD * torch.inf, "batch 1: holds NaN or infinity; expected values in 0..1"),
        (GOOD.numpy(), "batch 1: is numpy.ndarray; expected torch.Tensor (B, 3, H, W); convert it with torch.from_numpy"),
        ((GOOD, torch.zeros(2)), "batch 1: is tuple; expected torch.Tensor (B, 3, H, W); give the images alone"),
        ({"img": GOOD}, "batch 1: is dict; expected torch.Tensor (B, 3, H, W); give the images alone"),
        (GOOD.half(), "batch 1: is torch.float16; expected torch.float32 in 0..1, or torch.uint8 in 0..255"),
        (GOOD.long(), "batch 1: is torch.int64; expected torch.float32 in 0..1, or torch.uint8 in 0..255"),
        (GOOD[0], "batch 1: has shape (3, 32, 64); expected (B, 3, H, W)"),
        (GOOD[:0], "batch 1: has shape (0, 3, 32, 64); expected (B, 3, H, W)"),
        (GOOD[:, :1], "batch 1: has shape (2, 1, 32, 64); expected (B, 3, H, W)"),
        (GOOD.permute(0, 2, 3, 1), "batch 1: has shape (2, 32, 64, 3); expected (B, 3, H, W); move its channels with permute(0, 3, 1, 2)"),
        (GOOD[..., :50], "batch 1: has shape (2, 3, 32, 50); expected height and width that are multiples of 32"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused_in_one_line(batch, line):
    assert refusal(read, batch) == line


def test_the_number_of_a_later_batch_is_told():
    assert refusal(read, GOOD, GOOD * 255).startswith("batch 2: ")


@pytest.mark.parametrize(("given", "kind"), [(GOOD, "Tensor"), (3, "int"), (None, "NoneType")])
def test_what_is_no_list_of_batches_is_refused_before_it_is_read(given, kind):
    assert refusal(Batches, given=given) == f"images: is {kind}; expected a path, or a list of batches; give [batch]"


def test_calibration_checks_its_batches_and_takes_bytes_as_what_they_show(prepared, images):
    """Codes 0..255 give the ranges that the same pixels in 0..1 give, and the size that was calibrated is recorded."""
    codes = (images * 255).round().to(torch.uint8)
    found = [fxqat.calibrate(fresh(prepared), [shown]) for shown in (codes, codes.float() / 255)]
    states = [one.gm.state_dict() for one in found]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert [one.recipe.calibration["imgsz"] for one in found] == [64, 64]
    assert refusal(fxqat.calibrate, fresh(prepared), [codes.float()]).endswith("divide it by 255")
    assert refusal(fxqat.calibrate, fresh(prepared), np.zeros(3)).startswith("batch 1: is numpy.float64")


def fresh(prepared):
    made = copy.deepcopy(prepared)
    made.gm.apply(disable_observer)
    return made
