"""export: the file that a runtime executes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_image_size, add_input, add_output, add_quiet, add_target, add_trust
from fxqat.commands.command import (
    Command,
    check_counts,
    default_name,
    image_size,
    mark,
    output,
    say_inexact,
    say_unnamed,
    suffix_of,
)
from fxqat.commands.progress import working
from fxqat.commands.retarget import add_observed, retargeted
from fxqat.errors import Problem

if TYPE_CHECKING:
    from fxqat.models.detector import Detector


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat export`` takes."""
    parser.add_argument(
        "model", metavar="X", help="calibrated, trained or converted .fxqat; or a .pt, which is exported in float"
    )
    add_image_size(parser)
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default: %(default)s)")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch size open (ONNX)")
    parser.add_argument(
        "--opset",
        type=int,
        default=20,
        help="13 to 21 (ONNX), for runtimes that stop at an older one (default: %(default)s)",
    )
    add_input(parser)
    parser.add_argument(
        "--integers",
        metavar="X.npz",
        help="write plain integer weights, biases, scales, zero points and the graph as JSON instead, for FPGAs and "
        "kernels of your own",
    )
    add_target(parser, "what X was prepared for")
    add_observed(parser)
    add_output(parser, "X_int8.onnx, or .tflite for target litert; X.onnx where nothing is INT8")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat export``."""
    exported(options)


def exported(options: Namespace) -> Path:
    """``fxqat export``; the file that was written."""
    import fxqat
    from fxqat.runtime.reference.int8_summary import account

    check_counts(options)
    _check_names(options)
    model = fxqat.load(options.model, trust=options.trust)
    if model.stage == "float":
        say_unnamed(model, options.model)
    suffix = suffix_of(model, options.target)
    if options.target and options.target != model.recipe.target and model.stage != "float":
        model, _ = retargeted(options, model)
    if model.stage == "qat":
        model, _ = fxqat.convert(model)
    if options.integers:
        return _integers(options, model)
    path = output(options, default_name(options.model, f"{mark(model, '')}{suffix}"))
    size = image_size(options, model)
    with working(f"exporting {path.name}", options.quiet, f"export {path.suffix}", len(model.gm.graph.nodes)):
        fxqat.export(
            model,
            path,
            imgsz=size,
            batch=options.batch,
            dynamic=options.dynamic,
            opset=options.opset,
            input=options.input,
        )
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    if model.stage == "int8":
        print(account(model.gm))
        _say_exactness(path, model.recipe.target)
    if path.suffix == ".tflite":
        print(_float_operations(path))
    return path


def _check_names(options: Namespace) -> None:
    """Refuse before any work what cannot be written."""
    from fxqat.files import check_suffix, check_writable

    if not options.integers:
        output(options, default_name(options.model, "_int8.onnx"), ".onnx", ".tflite")
        return
    if options.output:
        raise Problem("-o", "names a file for a runtime", remedy="give it or --integers")
    check_suffix(Path(options.integers), ".npz")
    check_writable(options.integers)


def _integers(options: Namespace, model: Detector) -> Path:
    """``fxqat export --integers``; the file that was written."""
    from fxqat.runtime.integers_export import export_integers

    path = export_integers(model, options.integers, imgsz=image_size(options, model))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return path


def _say_exactness(path: Path, name: str) -> None:
    """What the weights of a file for the target ``name`` say about 16-bit sums, and whether this machine is exact."""
    from fxqat.runtime.onnx.overflow import prove
    from fxqat.runtime.runtimes import RUNTIMES
    from fxqat.targets import target_of

    target = target_of(name)
    runtime = RUNTIMES.get(target.runtime) if target is not None else None
    if runtime is None or not runtime.pair_orders:
        return
    print(prove(path, runtime.pair_orders))
    if runtime.installed:
        say_inexact([path], runtime.name)


def _float_operations(path: Path) -> str:
    from fxqat.runtime.tflite.tflite_file import TFLiteFile
    from fxqat.runtime.tflite.tflite_summary import float_operations

    return str(float_operations(TFLiteFile.read(path)))


COMMAND = Command(
    name="export",
    help="write ONNX, or .tflite for LiteRT, also for ultralytics.YOLO",
    example="fxqat export yolov8n_ptq.fxqat\nfxqat export yolov8n_ptq.fxqat --integers yolov8n.npz",
    arguments=arguments,
    run=run,
)
