"""Several devices: a process for each, started by torch.distributed, as Ultralytics starts its own.

Ultralytics' launcher pickles the trainer's class, arguments and model; ours has more than that to tell. The processes
are told by files: the detectors as .fxqat, the plan as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fxqat.checkpoint.model_io import save
from fxqat.errors import Problem
from fxqat.files import write_text
from fxqat.models import offline  # noqa: F401 - before ultralytics

# isort: split
from ultralytics.utils.dist import find_free_network_port


def launch(trainer: Any) -> None:
    """Train in ``trainer.world_size`` processes and wait for them.

    Raises:
        Problem: one of them failed; it has said why.
    """
    job = write_job(trainer)
    processes = ("--nproc_per_node", str(trainer.world_size), "--master_port", str(find_free_network_port()))
    command = [sys.executable, "-m", "torch.distributed.run", *processes, "-m", "fxqat.training.worker", str(job)]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise Problem(f"device {trainer.args.device}", f"a process ended with {code}; it has said why above")


def write_job(trainer: Any) -> Path:
    """Everything that a process has to know, in the run's folder ``job``."""
    job = Path(trainer.save_dir) / "job"
    job.mkdir(exist_ok=True)
    save(trainer.given, job / "model.fxqat")
    (job / "teacher.fxqat").unlink(missing_ok=True)
    if trainer.teacher is not None:
        save(trainer.teacher, job / "teacher.fxqat")
    told = {"plan": trainer.plan.summary(), "folder": str(trainer.save_dir), "resume": trainer.resuming}
    write_text(job / "job.json", json.dumps(told, indent=2) + "\n")
    return job
