"""prepare, calibrate, convert, export, run: from a checkpoint to a file that a runtime executes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.command import (
    SIZE,
    Command,
    add_images,
    add_output,
    add_patterns,
    add_quiet,
    add_trust,
    check_counts,
    default_name,
    image_size,
    output,
    progress,
    say_inexact,
    say_skipped,
    typed,
)
from fxqat.commands.retargeting import COMMANDS as RETARGETING
from fxqat.commands.retargeting import add_observed, add_target, retargeted, suffix_of

if TYPE_CHECKING:
    from fxqat.graph.pipeline import Gap
    from fxqat.models.detector import Detector


def _prepare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="yolov8n.pt, your own best.pt, or an architecture such as yolov8n.yaml"
    )
    parser.add_argument(
        "--policy",
        required=True,
        metavar="P",
        help="a policy file, or a shipped one by name: yolov8_critical, yolov8_w8a8, float",
    )
    add_target(parser, "the policy's")
    parser.add_argument("--classes", type=int, metavar="N", help="number of classes, for an architecture")
    parser.add_argument(
        "--passes",
        default="",
        metavar="TEXT",
        help="passes on the fused graph, such as 'swap_activation{sites=model.0.**,to=relu}'; also those of --patterns",
    )
    parser.add_argument("--print-passes", action="store_true", help="show what each pass changes as it runs")
    add_output(parser, "MODEL.fxqat in this folder")
    add_patterns(parser)
    add_trust(parser)


def prepare(options: Namespace) -> None:
    """``fxqat prepare``."""
    import fxqat

    path = output(options, Path(default_name(options.model, ".fxqat")).name, ".fxqat")
    model = fxqat.load(options.model, trust=options.trust, classes=options.classes)
    if model.source.unnamed:
        print(
            f"{model.source.unnamed} of {len(model.names)} classes have no name in {options.model}: their number is it"
        )
    qat, report = fxqat.prepare(
        model,
        options.policy,
        target=options.target,
        patterns=options.patterns,
        passes=options.passes,
        between=PassPrinter() if options.print_passes else None,
    )
    fxqat.save(qat, path)
    print(report, end="")
    print(f"wrote {path}")


class PassPrinter:
    """Prints what each pass changed, as soon as it did."""

    def __init__(self) -> None:
        self.before = ""

    def __call__(self, gap: Gap) -> None:
        """Print the difference that the last pass made."""
        from fxqat.graph.text import diff, text

        after = text(gap.gm.graph)
        if gap.done is not None:
            print(f"{gap.done.name}\n{diff(self.before, after)}", end="", flush=True)
        self.before = after


def _calibrate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="what fxqat prepare wrote")
    add_images(parser, limit=None, batch=8)
    _add_method(parser)
    add_output(parser, "X_ptq.fxqat")
    add_quiet(parser)


def calibrate(options: Namespace) -> None:
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
            progress=step,
            on_skip=lambda image, why: skipped.append((image, why)),
        )
    say_skipped(skipped)
    fxqat.save(calibrated, path)
    print(f"calibrated on {calibrated.recipe.calibration['images']} images")
    for done in calibrated.recipe.calibration.get("corrections", []):
        print(f"{done['name']}: {done['says']}")
    print(f"wrote {path}")


def _add_method(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        metavar="M",
        help="how activation ranges are chosen: standard, percentile, entropy or mse (default: as the policy says)",
    )


def _add_input(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        default="float",
        metavar="FORM",
        help="what the file takes: float (0..1), uint8 (0..255) or uint8-nhwc (channels last, as cameras deliver); for "
        "LiteRT, always channels last: float, uint8 or int8 (default: %(default)s)",
    )


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    add_output(parser, "X_int8.fxqat")


def convert(options: Namespace) -> None:
    """``fxqat convert``."""
    _converted(options)


def _converted(options: Namespace) -> Path:
    import fxqat

    output(options, default_name(options.model, "_int8.fxqat"), ".fxqat")
    int8, report = fxqat.convert(fxqat.load(options.model))
    path = output(options, default_name(options.model, f"{_mark(int8, '_float')}.fxqat"), ".fxqat")
    fxqat.save(int8, path)
    print(report, end="")
    print(f"wrote {path}")
    return path


def _mark(model: Detector, otherwise: str) -> str:
    """What an output's name says of ``model``: ``_int8`` where it computes in integers."""
    from fxqat.passes.lower import is_integer

    return "_int8" if is_integer(model.gm) else otherwise


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="X", help="calibrated, trained or converted .fxqat; or a .pt, which is exported in float"
    )
    parser.add_argument("--imgsz", type=int, metavar="N", help=SIZE)
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default: %(default)s)")
    parser.add_argument("--dynamic", action="store_true", help="leave the batch size open (ONNX)")
    parser.add_argument(
        "--opset",
        type=int,
        default=20,
        help="13 to 21, for runtimes that stop at an older one (ONNX; default: %(default)s)",
    )
    _add_input(parser)
    add_target(parser, "what X was prepared for")
    add_observed(parser)
    add_output(parser, "X_int8.onnx, or .tflite for target litert; X.onnx where nothing is INT8")
    add_trust(parser)


def export(options: Namespace) -> None:
    """``fxqat export``."""
    _exported(options)


def _exported(options: Namespace) -> Path:
    import fxqat
    from fxqat.runtime.int8_summary import account

    check_counts(options)
    output(options, default_name(options.model, "_int8.onnx"), ".onnx", ".tflite")
    model = fxqat.load(options.model, trust=options.trust)
    suffix = suffix_of(model, options.target)
    if options.target and options.target != model.recipe.target and model.stage != "float":
        model = retargeted(options, model)
    if model.stage == "qat":
        model, _ = fxqat.convert(model)
    path = output(options, default_name(options.model, f"{_mark(model, '')}{suffix}"))
    fxqat.export(
        model,
        path,
        imgsz=image_size(options, model),
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
        print(f"in float in the file: {_float_operations(path)}")
    return path


def _say_exactness(path: Path, name: str) -> None:
    """What the weights of a file for the target ``name`` say about 16-bit sums, and whether this machine is exact."""
    from fxqat.runtime.overflow import prove
    from fxqat.runtime.sessions import RUNTIMES
    from fxqat.targets import target_of

    target = target_of(name)
    runtime = RUNTIMES.get(target.runtime) if target is not None else None
    if runtime is None or not runtime.pair_orders:
        return
    print(prove(path, runtime.pair_orders))
    if runtime.installed:
        say_inexact([path], runtime.name)


def _float_operations(path: Path) -> str:
    from fxqat.runtime.tflite_file import TFLiteFile

    found = TFLiteFile.read(path).operations()
    return ", ".join(f"{count} {kind}" for (kind, type_), count in sorted(found.items()) if type_ == "float32")


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt or your own best.pt")
    parser.add_argument("--policy", required=True, metavar="P", help="a policy file, or a shipped one by name")
    add_target(parser, "the policy's")
    add_images(parser, limit=None, batch=8)
    _add_input(parser)
    _add_method(parser)
    parser.add_argument("-o", "--output", metavar="DIR", default=".", help="folder to write to (default: this one)")
    add_patterns(parser)
    add_trust(parser)
    add_quiet(parser)


def _run(options: Namespace) -> None:
    """The chain, each step shown as the command that does it alone."""
    check_counts(options)
    qat = Path(options.output) / Path(default_name(options.model, ".fxqat")).name
    ptq = output(Namespace(output=None), default_name(qat, "_ptq.fxqat"))
    shared = {"trust": options.trust, "quiet": options.quiet}
    sized = {"data": options.data, "images": options.images, "imgsz": options.imgsz}
    told = ["--data", options.data, *_given("--images", options.images)]
    _say("prepare", options.model, "--policy", options.policy, *_given("--target", options.target), "-o", qat)
    given = {"model": options.model, "policy": options.policy, "target": options.target}
    passes = {"passes": "", "print_passes": False}
    prepare(Namespace(**given, **passes, classes=None, output=qat, patterns=options.patterns, **shared))
    _say("calibrate", qat, *told, *_given("--method", options.method))
    calibrate(Namespace(model=qat, output=ptq, batch=options.batch, method=options.method, **sized, **shared))
    _say("convert", ptq)
    reference = _converted(Namespace(model=ptq, output=None, **shared))
    _say("export", reference, *_given("--input", options.input if options.input != "float" else None))
    shape = {"batch": 1, "dynamic": False, "opset": 20, "imgsz": options.imgsz, "input": options.input}
    path = _exported(Namespace(model=reference, output=None, target=None, **shape, **shared))
    following = (
        typed("fxqat", "val", options.model, path, "--data", "YOUR_VAL.yaml"),
        typed("fxqat", "verify", ptq, *told),
    )
    print(f"next: {'; '.join(following)}", flush=True)


def _given(option: str, value: object) -> list[object]:
    """``option`` and its value, or nothing without one."""
    return [] if value is None else [option, value]


def _say(*words: object) -> None:
    print(f"$ {typed('fxqat', *words)}", flush=True)


COMMANDS = (
    Command(
        name="prepare",
        help="trace, fuse, assign the policy, insert quantizers",
        example="fxqat prepare yolov8n.pt --policy yolov8_critical",
        arguments=_prepare_arguments,
        run=prepare,
    ),
    Command(
        name="calibrate",
        help="choose every range from real images",
        example="fxqat calibrate yolov8n.fxqat --data coco128.yaml",
        arguments=_calibrate_arguments,
        run=calibrate,
    ),
    Command(
        name="convert",
        help="lower to the INT8 reference graph",
        example="fxqat convert yolov8n_ptq.fxqat",
        arguments=_convert_arguments,
        run=convert,
    ),
    Command(
        name="export",
        help="write ONNX, or .tflite for LiteRT, also for ultralytics.YOLO",
        example="fxqat export yolov8n_ptq.fxqat",
        arguments=_export_arguments,
        run=export,
    ),
    Command(
        name="run",
        help="prepare, calibrate, convert and export in one go",
        example="fxqat run yolov8n.pt --policy yolov8_critical --data coco128.yaml",
        arguments=_run_arguments,
        run=_run,
    ),
    *RETARGETING,
)
