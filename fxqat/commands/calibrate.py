"""calibrate: every range from real images."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fxqat.commands.arguments import add_correct, add_images, add_method, add_output, add_quiet, corrections
from fxqat.commands.command import Command, check_counts, default_name, output, say_skipped
from fxqat.commands.progress import progress

_FEW = 32  # images
ADVISED = "these are few: 100 to 300 give ranges that hold for others, too"


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat calibrate`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="what fxqat prepare wrote")
    add_images(parser, limit=None, batch=8)
    add_method(parser)
    add_correct(parser)
    add_output(parser, "X_ptq.fxqat")
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat calibrate``."""
    import fxqat

    check_counts(options)
    path = output(options, default_name(options.model, "_ptq.fxqat"), ".fxqat")
    model = fxqat.load(options.model)
    skipped: list[tuple[Path, str]] = []
    with progress("calibrating", options.quiet) as step:
        calibrated = fxqat.calibrate(
            model,
            options.data,
            images_limit=options.images,
            imgsz=options.imgsz,
            batch=options.batch,
            method=options.method,
            corrections=corrections(options),
            progress=step,
            on_skip=lambda image, why: skipped.append((image, why)),
        )
    say_skipped(skipped)
    fxqat.save(calibrated, path)
    seen = calibrated.recipe.calibration["images"]
    print(f"calibrated on {seen} images" + (f"; {ADVISED}" if seen < _FEW else ""))
    for done in calibrated.recipe.calibration.get("corrections", []):
        print(f"{done['name']}: {done['says']}")
    print(f"wrote {path}")


COMMAND = Command(
    name="calibrate",
    help="choose every range from real images",
    example="fxqat calibrate yolov8n.fxqat --data coco128.yaml",
    arguments=arguments,
    run=run,
)
