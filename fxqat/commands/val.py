"""val: the accuracy of models on the same images."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_images, add_quiet, add_trust
from fxqat.commands.command import Command, check_counts, say_inexact, write_json
from fxqat.commands.progress import progress

if TYPE_CHECKING:
    from fxqat.evaluation.accuracy import Accuracy
    from fxqat.evaluation.comparison import ComparisonRow


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat val`` takes."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=".pt, .fxqat, .onnx or .tflite; the first is what the others are compared with",
    )
    add_images(parser, limit=None, batch=8)
    parser.add_argument("--split", default="val", help="split of the data set (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads when timing (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every number here, too")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat val``."""
    from fxqat.evaluation.comparison import compare

    check_counts(options)
    say_inexact(options.models)
    with progress("validating", options.quiet) as step:
        rows = compare(
            options.models,
            options.data,
            images_limit=options.images,
            imgsz=options.imgsz,
            batch=options.batch,
            split=options.split,
            threads=options.threads,
            trust=options.trust,
            progress=step,
        )
    print(_table(rows))
    write_json(options, [row.summary() for row in rows])


def _table(rows: list[ComparisonRow]) -> str:
    metric = rows[0].accuracy.metric
    head = ("model", metric.title, metric.second_title, "precision", "recall", "drift, points [95 %]", "MB", "ms")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        a = row.accuracy
        lines.append((_named(a), *_figures(a), str(row.drift or ""), f"{row.megabytes:.2f}", f"{row.milliseconds:.1f}"))
        lines += [(_named(one), *_figures(one), str(drift or ""), "", "") for one, drift in row.others]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    a = rows[0].accuracy
    skipped = f", {len(a.skipped)} skipped: {', '.join(path.name for path, _ in a.skipped[:5])}" if a.skipped else ""
    return f"{text}\n{a.images} images, {a.boxes} {a.metric.labels}{skipped}"


def _named(accuracy: Accuracy) -> str:
    return f"{accuracy.model} {accuracy.metric.of}".rstrip()


def _figures(accuracy: Accuracy) -> Iterator[str]:
    return (f"{value:.4f}" for value in (accuracy.map5095, accuracy.map50, accuracy.precision, accuracy.recall))


COMMAND = Command(
    name="val",
    help="accuracy by Ultralytics' validator, drift with interval, size, latency",
    example="fxqat val yolov8n.pt yolov8n_int8.onnx --data coco.yaml",
    arguments=arguments,
    run=run,
)
