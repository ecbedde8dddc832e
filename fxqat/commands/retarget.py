"""retarget: one calibrated or trained model in the layout of another runtime."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fxqat.commands.arguments import add_image_size, add_quiet, add_target
from fxqat.commands.command import Command, check_counts, default_name, output, write_json
from fxqat.commands.progress import progress

if TYPE_CHECKING:
    from fxqat.models.detector import Detector
    from fxqat.passes.transfer import TransferSummary


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


def retargeted(options: Namespace, model: Detector) -> tuple[Detector, TransferSummary]:
    """``model`` for ``options.target``, and where its numbers come from, which one line says."""
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
    return made, carried


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
    parser.add_argument("--json", metavar="FILE", help="write what was carried over, and the accuracies, here too")
    add_output(parser)
    add_quiet(parser)


def add_output(parser: ArgumentParser) -> None:
    """``-o``."""
    parser.add_argument("-o", "--output", metavar="OUT", help="where to write (default: X_TARGET.fxqat)")


def run(options: Namespace) -> None:
    """``fxqat retarget``."""
    import fxqat
    from fxqat.errors import Problem
    from fxqat.runtime.reference.int8_summary import account
    from fxqat.targets import TARGETS

    check_counts(options)
    if options.target is None:
        raise Problem("--target", "is missing", expected=f"one of: {', '.join(TARGETS)}")
    path = output(options, default_name(options.model, f"_{options.target}.fxqat"), ".fxqat")
    model = fxqat.load(options.model)
    made, carried = retargeted(options, model)
    fxqat.save(made, path)
    print(account(fxqat.convert(made)[0].gm))
    print(f"wrote {path}")
    accuracy = _loss(options, [options.model, path]) if options.val else None
    write_json(options, {"model": path.name, "target": options.target, **asdict(carried), "accuracy": accuracy})


def _loss(options: Namespace, models: list[object]) -> dict[str, Any]:
    """Both models' accuracy on ``--val``, which a line says, ready for JSON."""
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
    drift = paired_drift(before, after)
    print(f"{before.metric.title} {before.map5095:.4f} -> {after.map5095:.4f}, points {drift}")
    return {"before": before.map5095, "after": after.map5095, "drift": asdict(drift)}


COMMAND = Command(
    name="retarget",
    help="the same calibrated or trained model in the layout of another runtime",
    example="fxqat retarget yolov8n_ptq.fxqat --target openvino --val coco.yaml",
    arguments=arguments,
    run=run,
)
