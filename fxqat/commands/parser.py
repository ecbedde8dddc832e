"""The whole command line, command by command."""

from __future__ import annotations

import argparse

from fxqat.commands import (
    analyze,
    calibrate,
    convert,
    demo,
    demo_data,
    diff,
    drift,
    explain,
    export,
    prepare,
    report,
    retarget,
    run,
    search,
    sensitivity,
    sites,
    swap,
    targets,
    text,
    train,
    val,
    verify,
    why_not,
)
from fxqat.commands.command import Command
from fxqat.commands.command_parser import CommandParser

_EPILOG = """\
from a checkpoint to a proven INT8 file:
  fxqat prepare yolov8n.pt --policy yolov8_critical      writes yolov8n.fxqat
  fxqat calibrate yolov8n.fxqat --data coco128.yaml      writes yolov8n_ptq.fxqat
  fxqat train yolov8n_ptq.fxqat --data coco128.yaml      writes yolov8n_qat.fxqat, if PTQ is not enough
  fxqat export yolov8n_ptq.fxqat                         writes yolov8n_int8.onnx
  fxqat val yolov8n.pt yolov8n_int8.onnx --data coco.yaml
  fxqat verify yolov8n_ptq.fxqat --data coco128.yaml
"""
# In the order of the list that `fxqat --help` prints.
COMMANDS: tuple[Command, ...] = tuple(
    one.COMMAND
    for one in (
        prepare,
        calibrate,
        convert,
        export,
        run,
        retarget,
        train,
        swap,
        val,
        verify,
        analyze,
        sensitivity,
        search,
        drift,
        sites,
        explain,
        text,
        diff,
        report,
        why_not,
        targets,
        demo_data,
        demo,
    )
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = CommandParser(
        prog="fxqat",
        description="INT8 for YOLOv8: Torch FX passes, policies, calibration, export, proof.",
        epilog=_EPILOG,
    )
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    words = top.add_subparsers(metavar="COMMAND", required=True, parser_class=CommandParser)
    for command in COMMANDS:
        one = words.add_parser(
            command.name, help=command.help, description=command.help, epilog=f"example: {command.example}"
        )
        one.build = command.arguments
        one.set_defaults(run=command.run)
    return top
