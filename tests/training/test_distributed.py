"""Several devices: what processes are told, that they train one model, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fxqat
from fxqat.errors import Problem
from fxqat.training import distributed, resume_state
from fxqat.training import trainer as training

HERE = Path(__file__).resolve().parent


def test_two_processes_train_one_model(trainer, tmp_path, monkeypatch):
    run = trainer("two", unlabelled=True, lsq=True, lr0=1e-3, progressive={"model.6.**": 1}, epochs=2, compile=False)
    job = distributed.write_job(run)
    port = str(distributed.find_free_network_port())
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    done = subprocess.run(
        [sys.executable, *command, str(HERE / "two_processes.py"), str(job), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines() if "dB" in line] == ["0", "1", "2"]
    assert resume_state.read(run.state_file).epochs_done == 2
    # the one that started them goes on from their state
    monkeypatch.setattr(training, "launch", lambda one: None)
    run.ddp = True
    run.train()
    assert [row["epoch"] for row in run.history] == [0, 1, 2]
    assert run.result().recipe.training["best_epoch"] == run.best_epoch


def test_a_process_that_fails_is_told_in_one_line(trainer, monkeypatch):
    run = trainer("failing")
    run.world_size, run.args.device = 2, "0,1"
    seen: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: seen.append(command) or SimpleNamespace(returncode=1))
    with pytest.raises(Problem, match="device 0,1: a process ended with 1; it has said why above"):
        distributed.launch(run)
    assert seen[0][1:5] == ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    assert seen[0][-3:] == ["-m", "fxqat.training.worker", str(run.save_dir / "job")]


def test_what_processes_could_not_be_told_is_refused(trainer, ptq, tiny_data):
    with pytest.raises(Problem, match="ReduceLROnPlateau watches the mAP, which one process knows; use cosine"):
        trainer("plateau", device="0,1", schedule="ReduceLROnPlateau")
    with pytest.raises(Problem, match="device 0,1: callbacks cannot follow into the processes"):
        fxqat.train(ptq, tiny_data, device="0,1", callbacks=[object()])
