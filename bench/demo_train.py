"""Train the demo's detector: `python -m bench.demo_train --weights yolov8n.pt` writes fxqat/demo/signs_yolov8n.pt.

Draws the demo data set, trains YOLOv8n on it with Ultralytics' own trainer, validates the stripped checkpoint with
Ultralytics' own validator and prints the table of bench/demo_train.md. ``--data D.yaml --ship S.pt --out S`` trains a
detector of other signs, the float model for bench.qat.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.command import parser, run
from fxqat.demo import make_dataset
from fxqat.errors import Problem
from fxqat.files import write_bytes, write_text
from fxqat.models.environment import environment

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "fxqat/demo/signs_yolov8n.pt"
SHIPPED_ARGUMENTS = ("imgsz", "epochs", "batch")
TRAINING: dict[str, Any] = {
    "optimizer": "AdamW",
    "lr0": 0.001,
    "lrf": 0.02,
    "cos_lr": True,
    "warmup_epochs": 1.0,
    "nbs": 16,
    "mosaic": 0.5,
    "close_mosaic": 4,
    # A sign's mirror image is another sign.
    "fliplr": 0.0,
    "hsv_h": 0.01,
    "seed": 0,
    "deterministic": True,
    "amp": False,
    "plots": False,
    "workers": 0,
    "cache": "ram",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, train, validate, ship, report; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _made)


def _made(options: argparse.Namespace) -> dict[str, Any]:
    for file in (options.weights, options.data):
        if file is not None and not file.is_file():
            raise Problem(file, "no such file")
    _stay_offline(options.work / "settings")
    data = options.data or make_dataset(options.work / "signs", images=options.images, seed=0)
    began = time.monotonic()
    best = _train(options, data)
    minutes = (time.monotonic() - began) / 60
    shutil.copyfile(best.parents[1] / "results.csv", options.out.with_suffix(".csv"))
    row = {
        "images": None if options.data else options.images,
        "epochs": options.stop_after,
        "batch": options.batch,
        "minutes": round(minutes, 1),
    }
    ship(best, options.ship)
    result = row | _validate(options.ship, data, options) | {"bytes": options.ship.stat().st_size}
    write_text(options.out.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    print(_table(result))
    return result


def _parser() -> argparse.ArgumentParser:
    made = parser("demo_train", __doc__)
    made.add_argument("--weights", type=Path, default=Path("yolov8n.pt"), help="where training starts")
    made.add_argument("--images", type=int, default=2000, help="images drawn; 65 %% of them train")
    made.add_argument("--data", type=Path, metavar="D.yaml", help="train on this data set, draw none")
    made.add_argument("--epochs", type=int, default=12, help="length of the learning rate's schedule")
    made.add_argument("--stop-after", type=int, default=8, help="epochs of it that are run")
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--imgsz", type=int, default=320)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--work", type=Path, default=Path("runs/demo_train"), help="folder for data and runs")
    made.add_argument("--ship", type=Path, default=SHIPPED, help="where the checkpoint goes")
    made.add_argument("--out", type=Path, default=Path(__file__), help="stem of the result files")
    made.add_argument("--resume", action="store_true", help="continue a run that was cut off")
    return made


def _stay_offline(config: Path) -> None:
    """Keep Ultralytics off the network and out of the user's settings; called before anything imports it."""
    config.mkdir(parents=True, exist_ok=True)
    # Passive: threads that spin at barriers on cores shared with others made a step three times slower.
    os.environ.update(environment(config), YOLO_VERBOSE="1", OMP_WAIT_POLICY="PASSIVE")
    from ultralytics import settings

    settings.update({"sync": False})


def _train(options: argparse.Namespace, data: Path) -> Path:
    """Train and return the stripped best.pt."""
    from ultralytics import YOLO

    last = options.work / "run/weights/last.pt"
    resume = options.resume and last.is_file()
    model = YOLO(last if resume else options.weights)
    model.add_callback("on_train_start", partial(_use_cores, threads=options.threads))
    model.add_callback("on_train_epoch_end", partial(_stop, after=options.stop_after))
    if resume:
        model.train(resume=True)
    else:
        where = {"project": str(options.work.resolve()), "name": "run", "exist_ok": True}
        size = {"imgsz": options.imgsz, "epochs": options.epochs, "batch": options.batch, "device": "cpu"}
        model.train(data=str(data.resolve()), **size, **where, **TRAINING)
    return Path(model.trainer.best)


def _use_cores(trainer: Any, threads: int) -> None:
    """Undo Ultralytics' choice of one thread, and lay weights out as oneDNN likes them: 2.3 s a step became 0.9 s."""
    import torch

    torch.set_num_threads(threads)
    trainer.model.to(memory_format=torch.channels_last)


def _stop(trainer: Any, after: int) -> None:
    """End the run after the validation of epoch ``after``."""
    trainer.stop = trainer.stop or trainer.epoch + 1 >= after


def ship(best: Path, out: Path) -> None:
    """Write the half-precision model without optimizer, metrics' history or any path of this machine."""
    import torch

    found = torch.load(best, map_location="cpu", weights_only=False)
    model = (found["ema"] or found["model"]).half()
    model.criterion = None
    kept = {key: value for key, value in found["train_args"].items() if key in {*TRAINING, "task", *SHIPPED_ARGUMENTS}}
    model.args = kept
    model.pt_path = out.name
    about = {key: found[key] for key in ("date", "version", "license", "docs")}
    buffer = io.BytesIO()
    empty = dict.fromkeys(("best_fitness", "ema", "updates", "optimizer"))
    torch.save({"epoch": -1, **empty, "model": model, "train_args": kept, **about}, buffer)
    write_bytes(out, buffer.getvalue())


def _validate(weights: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the mAP on the val split, over all classes and for each."""
    from ultralytics import YOLO

    settings = {"imgsz": options.imgsz, "batch": 16, "device": "cpu", "workers": 0, "plots": False, "verbose": False}
    box = (
        YOLO(weights)
        .val(data=str(data.resolve()), project=str(options.work.resolve()), name="val", exist_ok=True, **settings)
        .box
    )
    return {
        "mAP50-95": round(float(box.map), 4),
        "mAP50": round(float(box.map50), 4),
        "classes": [round(float(value), 4) for value in box.maps],
    }


def _table(result: dict[str, Any]) -> str:
    keys = [key for key in result if key != "classes"]
    lines = [keys, ["---"] * len(keys), [str(result[key]) for key in keys]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
