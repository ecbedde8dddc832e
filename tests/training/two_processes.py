"""fxqat.training.worker as it is, but on the CPU: gloo in NCCL's place, and a check that both processes agree.

``python -m torch.distributed.run --nproc_per_node 2 two_processes.py JOB CONFIG``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fxqat.models.environment import environment

os.environ.update(environment(Path(sys.argv[2])))

import torch
from torch import distributed, nn

from fxqat.training import resume_state, worker
from fxqat.training.trainer import Trainer

torch.set_num_threads(1)
parallel, make, train = nn.parallel.DistributedDataParallel, Trainer.__init__, Trainer.train


def made(self, *args, **kwargs) -> None:
    make(self, *args, **kwargs)
    self.world_size = 2  # Ultralytics counts no processes on a CPU


def trained(self) -> None:
    train(self)
    found: list[str | None] = [None, None]
    distributed.all_gather_object(found, resume_state.digest(self.trainee.detector.gm.state_dict()))
    assert found[0] == found[1], "the two processes have different weights"
    assert found[0] != self.start_digest, "nothing was trained"


Trainer.__init__, Trainer.train = made, trained
Trainer._setup_ddp = lambda self: distributed.init_process_group("gloo")
nn.parallel.DistributedDataParallel = lambda model, device_ids, **options: parallel(model, **options)
worker.work(Path(sys.argv[1]))
