"""report, why-not: one page on a model, and what a rule thought of a site."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.command import (
    Command,
    Step,
    add_output,
    add_patterns,
    add_quiet,
    add_trust,
    check_counts,
    output,
    progress,
)
from fxqat.errors import Problem

if TYPE_CHECKING:
    from fxqat.report.why_not import Answer


def _why_not_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("rule", metavar="RULE", help="such as conv_bn_silu")
    parser.add_argument("model", metavar="MODEL", help="a .pt, or an architecture such as yolov8n.yaml")
    parser.add_argument(
        "glob",
        nargs="?",
        default="**",
        metavar="SITE",
        help="a site as it is called before the rule's pass, what lies under one, or a glob (default: all)",
    )
    parser.add_argument(
        "--policy",
        default="yolov8_w8a8",
        metavar="P",
        help="policy for the rules of quantize.py and lower.py (default: %(default)s)",
    )
    add_patterns(parser)
    add_trust(parser)


def _why_not(options: Namespace) -> None:
    import fxqat
    from fxqat.passes import Rules
    from fxqat.policy import Policy
    from fxqat.report.why_not import pattern_words, why_not

    rules = Rules.load(*options.patterns)
    rule = rules.named(options.rule)
    model = fxqat.load(options.model, trust=options.trust)
    found = why_not(model.gm, options.rule, options.glob, policy=Policy.load(options.policy), rules=rules)
    print(f"{rule.name} ({rule.source}) looks for {pattern_words(rule.pattern)}")
    shown = [one for one in found if one.depth] or found[:1] if len(found) > 1 else found
    for one in shown:
        print(one)
    if len(found) > 1:
        print(_summary(found))


def _summary(found: list[Answer]) -> str:
    fired = {one.fired for one in found if one.fired}
    nearly = sum(bool(one.depth) for one in found)
    taken = sum(one.taken is not None for one in found)
    rest = len(found) - sum(bool(one.fired) for one in found) - nearly - taken
    places = f"fired at {len(fired)} places, nearly at {nearly}"
    return f"of {len(found)} sites: {places}; {taken} were taken by rules before it, {rest} are nothing like it"


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="prepared, calibrated or trained")
    parser.add_argument(
        "--data",
        metavar="D",
        help="data set YAML (its val split), folder of images, list file, or one image; nothing is measured without",
    )
    parser.add_argument("--onnx", metavar="FILE", help="the file exported from it: detections, mAP and codes are its")
    parser.add_argument(
        "--against", metavar="M.pt", help="the float model to compare with (default: the same weights in float)"
    )
    parser.add_argument(
        "--images", type=int, default=16, metavar="N", help="for errors and detections (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=int, default=4, metavar="N", help="to show (default: %(default)s)")
    parser.add_argument(
        "--val", type=int, default=128, metavar="N", help="images for mAP, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--imgsz", type=int, metavar="PX", help="pixels, square (default: as calibrated)")
    parser.add_argument(
        "--drift", metavar="FILE", help="show the record of fxqat drift --json: stages, classes, latency, memory"
    )
    parser.add_argument(
        "--stages", action="store_true", help="measure that record here, on --val images, with latency and memory"
    )
    parser.add_argument("--json", metavar="FILE", help="write every number of the page here, too")
    add_output(parser, "X.html")
    add_trust(parser)
    add_quiet(parser)


def _report(options: Namespace) -> None:
    from fxqat.files import check_writable, write_text
    from fxqat.report.collect import Asked, collect
    from fxqat.report.page import render
    from fxqat.report.record import record

    check_counts(options)
    _check_not_negative(options)
    path = output(options, str(Path(options.model).with_suffix(".html")))
    if options.json:
        check_writable(options.json)
    asked = Asked(
        model=Path(options.model),
        data=options.data,
        onnx=Path(options.onnx) if options.onnx else None,
        against=Path(options.against) if options.against else None,
        images=options.images,
        pictures=options.pictures,
        val=options.val,
        imgsz=options.imgsz,
        trust=options.trust,
        drift=Path(options.drift) if options.drift else None,
        stages=options.stages,
    )
    with ExitStack() as stack:
        bars: list[Step] = []

        def begin(name: str) -> None:
            stack.close()
            bars[:] = [stack.enter_context(progress(name, options.quiet))]

        content = collect(
            asked, _command(options, path), on_step=begin, progress=lambda done, total: bars[0](done, total)
        )
    page = render(content)
    write_text(path, page)
    if options.json:
        write_text(options.json, json.dumps(record(content), indent=2, allow_nan=False) + "\n")
    print(f"{content.verdict.headline}. {' '.join(content.verdict.reasons)}")
    print(f"wrote {path} ({len(page.encode()) / 1e6:.2f} MB)")


def _check_not_negative(options: Namespace) -> None:
    for name in ("pictures", "val"):
        if getattr(options, name) < 0:
            raise Problem(f"--{name}", str(getattr(options, name)), expected="0 or more")


def _command(options: Namespace, path: Path) -> str:
    """The command line that was given, file names without their folders."""
    words = ["fxqat", "report", Path(options.model).name]
    for name in ("data", "onnx", "against", "drift"):
        if value := getattr(options, name):
            words += [f"--{name}", "/".join(Path(value).parts[-2:]) if name == "data" else Path(value).name]
    words += ["--images", str(options.images), "--val", str(options.val)] if options.data else []
    words += ["--stages"] if options.stages else []
    return " ".join([*words, *(["--imgsz", str(options.imgsz)] if options.imgsz else []), "-o", path.name])


COMMANDS = (
    Command(
        name="report",
        help="one HTML page: verdict, detections, graph, errors, policy, passes",
        example="fxqat report yolov8n_ptq.fxqat --data coco.yaml --onnx yolov8n_int8.onnx -o report.html",
        arguments=_report_arguments,
        run=_report,
    ),
    Command(
        name="why-not",
        help="why a rule did not fire",
        example="fxqat why-not conv_bn_silu yolov8n.pt model.2.m.0.cv1.conv",
        arguments=_why_not_arguments,
        run=_why_not,
    ),
)
