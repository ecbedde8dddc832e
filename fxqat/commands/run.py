"""run: from a checkpoint to an INT8 file, its validation against float, a report, and a decision."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands import calibrate, export, prepare, report, train
from fxqat.commands.arguments import (
    add_correct,
    add_images,
    add_input,
    add_method,
    add_patterns,
    add_policy,
    add_quiet,
    add_target,
    add_trust,
)
from fxqat.commands.command import Command, check_counts, default_name, typed, write_json
from fxqat.commands.decision import CORRECTED, next_command, policy_with_floats
from fxqat.commands.steps import step
from fxqat.policy.resources import DEFAULT_POLICY
from fxqat.report.actions import CORRECT, TRAIN

if TYPE_CHECKING:
    from fxqat.report.collect import Content
    from fxqat.report.verdict import Verdict

_BATCH = 8  # images at a time, as calibrate has it without a word
_VERIFIED = 4  # images whose codes are compared
_ANALYZED = 16  # images on which each site's error is measured


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat run`` takes."""
    parser.add_argument("model", metavar="MODEL", help="a checkpoint: your own best.pt, or yolov8n.pt")
    add_policy(parser, default=DEFAULT_POLICY)
    add_target(parser, "the policy's")
    add_images(parser, limit=None, batch=_BATCH)
    add_input(parser)
    add_method(parser)
    add_correct(parser)
    parser.add_argument(
        "--train", action="store_true", help="train the calibrated model too; it never ends below where it started"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="of --train (default: as fxqat train)")
    parser.add_argument(
        "--val", type=int, default=500, metavar="N", help="images to validate on, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write every number, the decision and the files here, too")
    parser.add_argument(
        "-o",
        "--output",
        dest="folder",
        metavar="DIR",
        default=".",
        help="folder to write to, made if it is missing (default: this one)",
    )
    add_patterns(parser)
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """The chain, each step shown as the command that does it alone, and what it came to."""
    from fxqat.files import make_folder

    check_counts(options)
    make_folder(options.folder, "-o")
    model = _trained(options) if options.train else _calibrated(options)
    size = _given("--imgsz", options.imgsz)
    shape = (*size, *_given("--input", options.input if options.input != "float" else None))
    file = step(export.COMMAND, model, *shape, quiet=options.quiet, run=export.exported)
    content: Content = step(report.COMMAND, *_report(options, model, file), quiet=options.quiet, run=report.reported)
    policy = _float_policy(options, content.verdict)
    following = _next(options, content.verdict, model, file, policy)
    if following:
        print(f"next: {following}", flush=True)
    if options.json:
        _write_json(options, content, file, following)


def _calibrated(options: Namespace) -> Path:
    """The calibrated model's file."""
    made = Path(options.folder) / Path(default_name(options.model, ".fxqat")).name
    trust = ("--trust",) if options.trust else ()
    rules = [word for file in options.patterns for word in ("--patterns", file)]
    target = _given("--target", options.target)
    step(prepare.COMMAND, options.model, "--policy", options.policy, *target, *rules, *trust, "-o", made)
    ptq = Path(default_name(made, "_ptq.fxqat"))
    shown = ("--data", options.data, *_given("--images", options.images), *_given("--imgsz", options.imgsz))
    batch = _given("--batch", options.batch if options.batch != _BATCH else None)
    how = (*shown, *batch, *_given("--method", options.method), *_given("--correct", options.correct))
    step(calibrate.COMMAND, made, *how, "-o", ptq, quiet=options.quiet)
    return ptq


def _trained(options: Namespace) -> Path:
    """The trained model's file, or the calibrated one's numbers under its name where no epoch was better."""
    ptq = _calibrated(options)
    path = Path(default_name(ptq, "_qat.fxqat"))
    how = ("--data", options.data, *_given("--epochs", options.epochs), "-o", path)
    step(train.COMMAND, ptq, *how, quiet=options.quiet)
    return path


def _report(options: Namespace, model: Path, file: Path) -> list[object]:
    """The words of the report: verified, validated, and where the runtime is at hand timed."""
    against = _given("--against", options.model if Path(options.model).suffix == ".pt" else None)
    timed = ("--latency",) if file.suffix == ".onnx" else ()
    counts = ("--images", _ANALYZED, "--verify", _VERIFIED, "--val", options.val)
    trust = ("--trust",) if options.trust and against else ()
    size = _given("--imgsz", options.imgsz)
    page = model.with_name(f"{file.stem}.html")
    return [model, "--data", options.data, "--onnx", file, *against, *timed, *counts, *size, *trust, "-o", page]


def _float_policy(options: Namespace, verdict: Verdict) -> Path | None:
    """A policy that keeps the layers of the decision in float, where it is about layers."""
    from fxqat.files import write_text

    if not verdict.sites:
        return None
    stem = Path(default_name(options.model, "")).name
    path = Path(options.folder) / f"{stem}_floats.yaml"
    write_text(path, policy_with_floats(options.policy, verdict.sites))
    print(f"wrote {path}, a policy that keeps them in float")
    return path


def _next(options: Namespace, verdict: Verdict, model: Path, file: Path, policy: Path | None) -> str:
    """What to type next, by the decision; empty where the file is to be shipped."""
    again = ["fxqat", "run", options.model, "--data", options.data]
    if policy is not None:
        train = ("--train",) if options.train else ()
        return typed(*again, "--policy", policy, *train, *_given("--target", options.target))
    more = {CORRECT: CORRECTED, TRAIN: (*_given("--correct", options.correct), "--train")}
    if verdict.action in more:
        same = ("--policy", options.policy, *_given("--target", options.target))
        return typed(*again, *same, *more[verdict.action])
    return next_command(verdict, source=options.model, data=options.data, model=str(model), file=str(file))


def _write_json(options: Namespace, content: Content, file: Path, following: str) -> None:
    from fxqat.report.report_json import report_json

    found = {"file": file.name, "next": following, **report_json(content)}
    write_json(options, found)


def _given(option: str, value: object) -> Sequence[object]:
    """``option`` and its value, or nothing without one."""
    return () if value is None else (option, value)


COMMAND = Command(
    name="run",
    help="from a checkpoint to an INT8 file, its accuracy and speed against float, a report and a decision",
    example="fxqat run best.pt --data data.yaml\nfxqat run best.pt --data data.yaml --train",
    arguments=arguments,
    run=run,
)
