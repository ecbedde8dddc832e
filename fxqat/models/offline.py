"""Ultralytics made quiet and offline-proof: import this module before anything imports ultralytics.

``from fxqat.models import offline`` changes nothing on disk. Two things stay with the caller: `environment` (cli.py and
conftest.py apply it before the first import) and ``amp=False`` when training on a GPU, since Ultralytics' AMP check
downloads a model.
"""

from __future__ import annotations

import atexit
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch  # before ultralytics, which sets OMP_NUM_THREADS=1 for whatever loads after it

from fxqat.files import temporary_folder
from fxqat.models.environment import environment

__all__ = ["environment", "provide_fonts", "quiet", "threads_kept"]

_IN_MEMORY = {
    "sync": False,  # analytics and crash reports
    "clearml": False,
    "comet": False,
    "dvc": False,
    "mlflow": False,
    "raytune": False,
    "vscode_msg": False,
    "openvino_msg": False,
}


def quiet() -> None:
    """Silence Ultralytics' logger and progress bars and switch off everything that would use the network.

    Settings change in memory only: the user's own settings file keeps its values. Calling it again changes nothing.
    """
    utils = _import_silently()
    utils.LOGGER.setLevel(logging.ERROR)  # Ultralytics' TQDM follows the logger's level
    dict.update(utils.SETTINGS, _IN_MEMORY)  # the class's own update() writes the file
    if (events := sys.modules.get("ultralytics.utils.events")) is not None:
        events.events.enabled = False


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch its threads back after the block: when Ultralytics chooses a CPU, it leaves the process all but one
    core, eight at most."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def provide_fonts() -> None:
    """Let Ultralytics find a font, so that checking a data set for training does not download Arial.

    ``check_det_dataset`` looks for Arial among matplotlib's fonts before it asks the network; matplotlib is given its
    own DejaVu Sans under that name, in memory and in a temporary folder that is removed at exit.
    """
    from matplotlib import font_manager

    known = font_manager.fontManager.ttflist
    missing = [name for name in ("Arial.ttf", "Arial.Unicode.ttf") if not any(name in font.fname for font in known)]
    if not missing:
        return
    with ExitStack() as made:
        folder = made.enter_context(temporary_folder("fxqat-fonts-"))
        atexit.register(made.pop_all().close)
    for name in missing:
        shutil.copyfile(font_manager.findfont("DejaVu Sans"), folder / name)
        font_manager.fontManager.addfont(str(folder / name))


def _import_silently() -> Any:
    """Import ultralytics.utils without its first-run announcement."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import ultralytics.utils
    finally:
        logging.disable(before)
    return ultralytics.utils


quiet()
