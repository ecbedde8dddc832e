"""train: quantization-aware training of a calibrated detector."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fxqat.commands.arguments import add_image_size, add_output, add_quiet, add_trust
from fxqat.commands.command import Command, default_name, output, write_json
from fxqat.commands.progress import progress
from fxqat.errors import Problem
from fxqat.files import check_folder
from fxqat.training.command_words import SWITCHES, VALUES

if TYPE_CHECKING:
    from fxqat.models.detector import Detector


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat train`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="what fxqat calibrate wrote")
    parser.add_argument(
        "--data", required=True, metavar="D", help="data set YAML, of classifiers a folder; its val split needs labels"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="all in all (default: 3)")
    parser.add_argument("--batch", type=int, metavar="N", help="images a step (default: 4)")
    add_image_size(parser, "as calibrated, or 640")
    parser.add_argument("--device", metavar="D", help="cpu, 0, 0,1 ... (default: a GPU where there is one)")
    parser.add_argument("--seed", type=int, metavar="N", help="of augmentation and everything random (default: 0)")
    parser.add_argument("--lsq", action=BooleanOptionalAction, help="learn the scales of activations too")
    parser.add_argument(
        "--unlabelled",
        action=BooleanOptionalAction,
        help="learn from the float network instead of the train split's labels",
    )
    parser.add_argument("--distill", type=float, metavar="W", help="weight of the float network beside the labels")
    parser.add_argument("--penalty", type=float, metavar="W", help="weight of the weights' rounding error")
    parser.add_argument("--teacher", metavar="M", help="float checkpoint to learn from (default: X, not quantized)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option, ours or Ultralytics'; may be given again",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write events into the folder X_qat/tensorboard")
    parser.add_argument("--json", metavar="FILE", help="write options, mAP of every epoch and the best one here, too")
    parser.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    add_output(parser, "X_qat.fxqat; the run's state and tables lie in the folder X_qat")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat train``."""
    import fxqat

    path = output(options, default_name(options.model, "_qat.fxqat"), ".fxqat")
    folder = path.with_suffix("")
    check_folder(folder / "tensorboard" if options.tensorboard else folder)
    chosen = _options(options)
    model = fxqat.load(options.model)
    teacher = fxqat.load(options.teacher, trust=options.trust) if options.teacher else None
    try:
        with progress("training", options.quiet) as step:
            trained = fxqat.train(
                model,
                options.data,
                folder=folder,
                teacher=teacher,
                resume=options.resume,
                progress=step,
                on_line=lambda line: print(line, flush=True),
                callbacks=_callbacks(options, folder),
                **chosen,
            )
    except KeyboardInterrupt:
        _say_interrupted(folder)
        raise SystemExit(130) from None
    _save(trained, path, folder)
    print(_verdict(trained.recipe.training))
    write_json(options, trained.recipe.training)
    print(f"wrote {path}")


def _save(trained: Detector, path: Path, folder: Path) -> None:
    import fxqat

    try:
        fxqat.save(trained, path)
    except Problem as problem:
        kept = f"the training is kept in {folder}: make room, and give the command again with --resume"
        raise Problem(problem.where, problem.what, remedy=kept) from problem


def _callbacks(options: Namespace, folder: Path) -> list[Any]:
    if not options.tensorboard:
        return []
    from fxqat.training.callbacks import QuantizationErrorMonitor, TensorBoardLogger

    logger = TensorBoardLogger(folder / "tensorboard")
    return [logger, QuantizationErrorMonitor(logger=logger)] if options.model.endswith(".fxqat") else [logger]


def _options(options: Namespace) -> dict[str, Any]:
    """What was given on the command line."""
    given = {name: getattr(options, name) for name in (*VALUES, *SWITCHES)}
    chosen = {name: value for name, value in given.items() if value is not None}
    for pair in options.set:
        name, equals, text = pair.partition("=")
        if not equals:
            raise Problem("--set", repr(pair), expected="NAME=VALUE, such as lr0=0.00002")
        chosen[name] = _value(text)
    return chosen


def _value(text: str) -> Any:
    if re.fullmatch(r"[+-]?\d+e[+-]?\d+", text, re.IGNORECASE):  # YAML 1.1 wants a point in 1.0e-5
        return float(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # also a date that is none
        return text


def _verdict(record: Mapping[str, Any]) -> str:
    """Which epoch the result is, in words."""
    measured, best, metric = record["map5095"], record["best_epoch"], record["metric"]
    start = f"{measured[0] * 100:.2f}"
    if best == 0:
        return f"no epoch was better than the model as given ({metric} {start}): that is the result"
    points = (measured[best] - measured[0]) * 100
    said = (
        f"epoch {best} is the result: {metric} {measured[best] * 100:.2f}, {points:+.2f} points on the {start} before"
    )
    if not (gain := record.get("gain")):
        return said
    chance = ": chance alone may do that" if gain["low"] <= 0 else ""
    return f"{said} (95 %: {gain['low']:+.2f} to {gain['high']:+.2f} on {gain['images']} images{chance})"


def _say_interrupted(folder: Path) -> None:
    saved = (folder / "weights" / "state.safetensors").is_file()
    then = "finished epochs are saved; go on with --resume" if saved else "no epoch was finished"
    print(f"fxqat: interrupted; {then}", file=sys.stderr)


COMMAND = Command(
    name="train",
    help="quantization-aware training; never ends below where it started",
    example="fxqat train yolov8n_ptq.fxqat --data coco128.yaml --no-unlabelled --distill 1",
    arguments=arguments,
    run=run,
)
