"""export: the file that a runtime executes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fxqat.commands.arguments import (
    add_input,
    add_output,
    add_target,
    add_trust,
)
from fxqat.commands.command import Command, check_counts, default_name, output, say_inexact
from fxqat.commands.retarget import add_observed, retargeted


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat export`` takes."""
    parser.add_argument(
        "model", metavar="X", help="calibrated, trained or converted .fxqat; or a .pt, which is exported in float"
    )
    parser.add_argument(
        "--imgsz", type=int, default=640, help="pixels, square, a multiple of the model's stride (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default: %(default)s)")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch size open")
    parser.add_argument("--opset", type=int, default=20, help="19 or 20 (default: %(default)s)")
    add_input(parser)
    add_target(parser, "what X was prepared for")
    add_observed(parser)
    add_output(parser, "X_int8.onnx")
    add_trust(parser)


def run(options: Namespace) -> None:
    """``fxqat export``."""
    import fxqat
    from fxqat.runtime.int8_summary import account

    check_counts(options)
    is_float = not options.model.endswith(".fxqat")
    path = output(
        options, f"{Path(options.model).stem}.onnx" if is_float else default_name(options.model, "_int8.onnx")
    )
    model = fxqat.load(options.model, trust=options.trust)
    if options.target and options.target != model.recipe.target:
        model = retargeted(options, model)
    if model.stage == "qat":
        model, _ = fxqat.convert(model)
    fxqat.export(
        model,
        path,
        imgsz=options.imgsz,
        batch=options.batch,
        dynamic=options.dynamic,
        opset=options.opset,
        input=options.input,
    )
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    if model.stage == "int8":
        print(account(model.gm))
        _say_exactness(path, model.recipe.target)


def _say_exactness(path: Path, name: str) -> None:
    """What the weights of a file for the target ``name`` say about 16-bit sums, and whether this machine is exact."""
    from fxqat.runtime.overflow import prove
    from fxqat.runtime.sessions import RUNTIMES
    from fxqat.targets import target_of

    target = target_of(name)
    if target is None or target.runtime not in RUNTIMES:
        return
    runtime = RUNTIMES[target.runtime]
    print(prove(path, runtime.pair_orders))
    if runtime.installed:
        say_inexact([path], runtime.name)


COMMAND = Command(
    name="export",
    help="write ONNX for ONNX Runtime and ultralytics.YOLO",
    example="fxqat export yolov8n_ptq.fxqat",
    arguments=arguments,
    run=run,
)
