"""run: prepare, calibrate, convert and export in one go."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands import calibrate, convert, export, prepare
from fxqat.commands.arguments import (
    add_images,
    add_input,
    add_method,
    add_patterns,
    add_policy,
    add_quiet,
    add_target,
    add_trust,
)
from fxqat.commands.command import Command, check_counts, default_name, output, typed

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat run`` takes."""
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt or your own best.pt")
    add_policy(parser, default="yolov8_critical")
    add_target(parser, "the policy's")
    add_images(parser, limit=None, batch=8)
    add_input(parser)
    add_method(parser)
    parser.add_argument("-o", "--output", metavar="DIR", default=".", help="folder to write to (default: this one)")
    add_patterns(parser)
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """The chain, each step shown as the command that does it alone."""
    check_counts(options)
    qat = Path(options.output) / Path(default_name(options.model, ".fxqat")).name
    ptq = output(Namespace(output=None), default_name(qat, "_ptq.fxqat"))
    shared = {"trust": options.trust, "quiet": options.quiet}
    sized = {"data": options.data, "images": options.images, "imgsz": options.imgsz}
    told = ["--data", options.data, *_given("--images", options.images), *_given("--imgsz", options.imgsz)]
    _say("prepare", options.model, "--policy", options.policy, *_given("--target", options.target), "-o", qat)
    given = {"model": options.model, "policy": options.policy, "target": options.target}
    passes = {"passes": "", "print_passes": False, "nms_free": False}
    prepare.run(Namespace(**given, **passes, classes=None, output=qat, patterns=options.patterns, **shared))
    _say("calibrate", qat, *told, *_given("--method", options.method))
    calibrate.run(Namespace(model=qat, output=ptq, batch=options.batch, method=options.method, **sized, **shared))
    _say("convert", ptq)
    reference = convert.converted(Namespace(model=ptq, output=None, **shared))
    _say("export", reference, *_given("--input", options.input if options.input != "float" else None))
    shape = {"batch": 1, "dynamic": False, "opset": 20, "imgsz": options.imgsz, "input": options.input}
    path = export.exported(Namespace(model=reference, output=None, target=None, **shape, **shared))
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


COMMAND = Command(
    name="run",
    help="prepare, calibrate, convert and export in one go",
    example="fxqat run yolov8n.pt --policy yolov8_critical --data coco128.yaml",
    arguments=arguments,
    run=run,
)
