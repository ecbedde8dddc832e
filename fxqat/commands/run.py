"""run: prepare, calibrate, convert and export in one go."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

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
from fxqat.commands.command import Command


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat run`` takes."""
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt or your own best.pt")
    add_policy(parser, required=True)
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
    stem = Path(options.output) / Path(options.model).stem
    shared = {"trust": options.trust, "quiet": options.quiet}
    sized = {"data": options.data, "images": options.images, "imgsz": options.imgsz}
    told = f"--data {options.data}" + (f" --images {options.images}" if options.images else "")
    chosen = f" --target {options.target}" if options.target else ""
    _say(f"fxqat prepare {options.model} --policy {options.policy}{chosen} -o {stem}.fxqat")
    given = {"model": options.model, "policy": options.policy, "target": options.target}
    passes = {"passes": "", "print_passes": False}
    prepare.run(Namespace(**given, **passes, classes=None, output=f"{stem}.fxqat", patterns=options.patterns, **shared))
    _say(f"fxqat calibrate {stem}.fxqat {told}" + (f" --method {options.method}" if options.method else ""))
    calibrate.run(
        Namespace(model=f"{stem}.fxqat", output=None, batch=options.batch, method=options.method, **sized, **shared)
    )
    _say(f"fxqat convert {stem}_ptq.fxqat")
    convert.run(Namespace(model=f"{stem}_ptq.fxqat", output=None, **shared))
    form = f" --input {options.input}" if options.input != "float" else ""
    _say(f"fxqat export {stem}_int8.fxqat{form}")
    shape = {"batch": 1, "dynamic": False, "opset": 20, "imgsz": options.imgsz, "input": options.input}
    export.run(Namespace(model=f"{stem}_int8.fxqat", output=None, target=None, **shape, **shared))
    _say(f"next: fxqat val {options.model} {stem}_int8.onnx --data YOUR_VAL.yaml; fxqat verify {stem}_ptq.fxqat {told}")


def _say(command: str) -> None:
    print(f"$ {command}" if command.startswith("fxqat") else command, flush=True)


COMMAND = Command(
    name="run",
    help="prepare, calibrate, convert and export in one go",
    example="fxqat run yolov8n.pt --policy yolov8_critical --data coco128.yaml",
    arguments=arguments,
    run=run,
)
