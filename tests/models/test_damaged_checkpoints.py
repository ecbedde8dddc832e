"""Damaged and hostile checkpoints: a sample of ``python -m bench.damaged_checkpoints``."""

from __future__ import annotations

import io
import random

import pytest
import torch

from bench.damaged_checkpoints import DAMAGES, call, pickle_of, trials, with_pickle, written

SEED, COUNT = 11, 60


def test_damaged_checkpoints_are_refused_and_run_nothing(tmp_path):
    counts = trials(tmp_path, COUNT, SEED)
    assert len(counts) == 2 * len(DAMAGES)
    assert sum(sum(row.values()) for row in counts.values()) == COUNT
    certain = [row for damage, row in counts.items() if "call" in damage or "short" in damage]
    assert len(certain) == 4
    assert all(set(row) == {"refused"} for row in certain)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_call_that_the_script_puts_in_would_run(zipped, tmp_path):
    data = call(written(zipped=zipped), random.Random(1), tmp_path / "ran")
    torch.load(io.BytesIO(data), weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_the_script_changes_the_pickle_alone(zipped):
    data = written(zipped=zipped)
    same = with_pickle(data, pickle_of(data))
    assert pickle_of(same) == pickle_of(data)
    assert torch.load(io.BytesIO(same), weights_only=False)["epoch"] == 3
