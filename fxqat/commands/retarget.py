"""retarget: one calibrated or trained model in the layout of another runtime."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_image_size, add_quiet, add_target
from fxqat.commands.command import Command, check_counts, default_name, output
from fxqat.commands.progress import progress

if TYPE_CHECKING:
    from fxqat.models.detector import Detector


def add_observed(parser: ArgumentParser) -> None:
    """``--data`` and ``--images`` of a change of target."""
    parser.add_argument(
        "--data",
        metavar="D",
        help="with another --target: images to observe the tensors on that only it rounds",
    )
    parser.add_argument(
        "--images", type=int, metavar="N", help="so many images of --data, evenly spread (default: all)"
    )


def retargeted(options: Namespace, model: Detector) -> Detector:
    """``model`` for ``options.target``; one line says what was carried over."""
    import fxqat

    with progress("observing", getattr(options, "quiet", False)) as step:
        made, carried = fxqat.retarget(
            model,
            options.target,
            options.data,
            images_limit=options.images,
            imgsz=options.imgsz,
            progress=step,
        )
    print(f"{model.recipe.target} -> {options.target}: {carried}")
    return made


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat retarget`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    add_target(parser, "none, give one")
    add_observed(parser)
    add_image_size(parser)
    parser.add_argument(
        "--val", metavar="V", help="labelled data set YAML: report the accuracy of both, with the paired interval"
    )
    parser.add_argument("--val-images", type=int, metavar="N", help="so many images of --val (default: all)")
    add_output(parser)
    add_quiet(parser)


def add_output(parser: ArgumentParser) -> None:
    """``-o``."""
    parser.add_argument("-o", "--output", metavar="OUT", help="where to write (default: X_TARGET.fxqat)")


def run(options: Namespace) -> None:
    """``fxqat retarget``."""
    import fxqat
    from fxqat.errors import Problem
    from fxqat.runtime.int8_summary import account
    from fxqat.targets import TARGETS

    check_counts(options)
    if options.target is None:
        raise Problem("--target", "is missing", expected=f"one of: {', '.join(TARGETS)}")
    path = output(options, default_name(options.model, f"_{options.target}.fxqat"), ".fxqat")
    model = fxqat.load(options.model)
    made = retargeted(options, model)
    fxqat.save(made, path)
    print(account(fxqat.convert(made)[0].gm))
    print(f"wrote {path}")
    if options.val:
        _report_loss(options, [options.model, path])


def _report_loss(options: Namespace, models: list[object]) -> None:
    from fxqat.evaluation.accuracy import evaluate
    from fxqat.evaluation.bootstrap import paired_drift
    from fxqat.evaluation.comparison import open_model, usual_size

    found = []
    for index, model in enumerate(models):
        with progress(f"validating {index + 1} of 2", options.quiet) as step:
            opened = open_model(str(model))
            size = usual_size([opened]) if options.imgsz is None else options.imgsz
            found.append(evaluate(opened, options.val, imgsz=size, limit=options.val_images, progress=step))
    before, after = found
    print(f"mAP50-95 {before.map5095:.4f} -> {after.map5095:.4f}, points {paired_drift(before, after)}")


COMMAND = Command(
    name="retarget",
    help="the same calibrated or trained model in the layout of another runtime",
    example="fxqat retarget yolov8n_ptq.fxqat --target openvino --val coco.yaml",
    arguments=arguments,
    run=run,
)
