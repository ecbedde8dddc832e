"""report: one HTML page on a model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_image_size, add_output, add_quiet, add_trust
from fxqat.commands.command import Command, check_counts, output, write_json
from fxqat.commands.decision import next_command
from fxqat.commands.progress import Phases
from fxqat.errors import Problem

if TYPE_CHECKING:
    from fxqat.report.collect import Content


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat report`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="prepared, calibrated or trained")
    parser.add_argument(
        "--data",
        metavar="D",
        help="data set YAML (its val split), folder of images, list file, or one image; nothing is measured without",
    )
    parser.add_argument(
        "--file", "--onnx", metavar="FILE", help="exported from it, .onnx or .tflite: detections, mAP and codes are its"
    )
    parser.add_argument(
        "--against", metavar="M.pt", help="the float model to compare with (default: the same weights in float)"
    )
    parser.add_argument(
        "--images", type=int, default=16, metavar="N", help="for errors and detections (default: %(default)s)"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=4,
        metavar="N",
        help="to show, of the images on which the two models differ most (default: %(default)s)",
    )
    parser.add_argument(
        "--val", type=int, default=128, metavar="N", help="images for mAP, 0 for none (default: %(default)s)"
    )
    add_image_size(parser, "as calibrated")
    parser.add_argument(
        "--drift", metavar="FILE", help="show the record of fxqat drift --json: stages, classes, latency, memory"
    )
    parser.add_argument(
        "--stages", action="store_true", help="measure that record here, on --val images, with latency and memory"
    )
    parser.add_argument(
        "--latency", action="store_true", help="time one image in the file of --file, in turns with the float network"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads when timing (default: %(default)s)")
    parser.add_argument(
        "--verify", type=int, default=1, metavar="N", help="images to compare codes on (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write every number of the page here, too")
    add_output(parser, "X.html")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat report``."""
    content = reported(options)
    said = next_command(
        content.verdict,
        source=options.against or content.provenance.model["Float model"],
        data=options.data or "DATA.yaml",
        model=options.model,
        file=options.file,
    )
    if said:
        print(f"next: {said}")


def reported(options: Namespace) -> Content:
    """``fxqat report``; what the page shows."""
    from fxqat.files import write_text
    from fxqat.report.collect import ReportOptions, collect
    from fxqat.report.page import render
    from fxqat.report.report_json import report_json

    check_counts(options)
    _check_not_negative(options)
    path = output(options, str(Path(options.model).with_suffix(".html")))
    asked = ReportOptions(
        model=Path(options.model),
        data=options.data,
        file=Path(options.file) if options.file else None,
        against=Path(options.against) if options.against else None,
        images=options.images,
        pictures=options.pictures,
        val=options.val,
        imgsz=options.imgsz,
        trust=options.trust,
        drift=Path(options.drift) if options.drift else None,
        stages=options.stages,
        latency=options.latency,
        threads=options.threads,
        verify=options.verify,
    )
    with Phases(options.quiet) as shown:
        content = collect(asked, _command(options, path), on_step=shown.begin, progress=shown.count)
    page = render(content)
    write_text(path, page)
    write_json(options, report_json(content))
    print(f"{content.verdict.headline}. {' '.join(content.verdict.reasons)}")
    print(f"wrote {path} ({len(page.encode()) / 1e6:.2f} MB)")
    print(f"decision: {content.verdict.advice}")
    return content


def _check_not_negative(options: Namespace) -> None:
    for name in ("pictures", "val"):
        if getattr(options, name) < 0:
            raise Problem(f"--{name}", str(getattr(options, name)), expected="0 or more")


def _command(options: Namespace, path: Path) -> str:
    """The command line that was given, file names without their folders."""
    words = ["fxqat", "report", Path(options.model).name]
    for name in ("data", "file", "against", "drift"):
        if value := getattr(options, name):
            words += [f"--{name}", "/".join(Path(value).parts[-2:]) if name == "data" else Path(value).name]
    words += ["--images", str(options.images), "--val", str(options.val)] if options.data else []
    words += [f"--{name}" for name in ("stages", "latency") if getattr(options, name)]
    return " ".join([*words, *(["--imgsz", str(options.imgsz)] if options.imgsz else []), "-o", path.name])


COMMAND = Command(
    name="report",
    help="one HTML page: verdict, detections, graph, errors, policy, passes",
    example="fxqat report yolov8n_ptq.fxqat --data coco.yaml --file yolov8n_int8.onnx -o report.html",
    arguments=arguments,
    run=run,
)
