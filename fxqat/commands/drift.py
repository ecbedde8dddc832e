"""drift: accuracy at each stage from float to the file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fxqat.commands.arguments import add_images, add_quiet, add_trust
from fxqat.commands.command import Command, check_counts, image_size, write_json
from fxqat.commands.progress import Phases
from fxqat.commands.tables import table

if TYPE_CHECKING:
    from fxqat.evaluation.drift import Stage
    from fxqat.evaluation.latency import Latency
    from fxqat.evaluation.memory import Memory


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat drift`` takes."""
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    parser.add_argument("--float", dest="source", metavar="M.pt", help="the checkpoint it was made of, as first stage")
    add_images(parser, limit=None, batch=8)
    parser.add_argument("--split", default="val", help="labelled split (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.25, help="confidence for recall and score shift (default: %(default)s)"
    )
    parser.add_argument("--classes", type=int, default=5, metavar="N", help="classes to print, worst (default: 5)")
    parser.add_argument("--memory", action="store_true", help="peak memory and size, each model in its own process")
    parser.add_argument(
        "--latency", action="store_true", help="percentiles over threads 1, 2 and batches 1, 4 against float"
    )
    parser.add_argument("--json", metavar="FILE", help="write every number here, too")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat drift``."""
    import fxqat
    from fxqat.evaluation.drift_report import DriftOptions, travel
    from fxqat.files import temporary_folder
    from fxqat.workflow.stage_checks import expect_calibrated

    check_counts(options)
    model = fxqat.load(options.model)
    expect_calibrated(model, "drift")
    asked = DriftOptions(
        data=options.data,
        split=options.split,
        images=options.images,
        imgsz=image_size(options, model),
        batch=options.batch,
        threshold=options.threshold,
        source=options.source,
        trust=options.trust,
        memory=options.memory,
        latency=options.latency,
    )
    with temporary_folder("fxqat-drift-") as folder, Phases(options.quiet) as shown:
        found = travel(model, options.model, asked, folder, shown.step)
    print(_report(found.stages, found.classes[: options.classes], options.threshold))
    if found.memory:
        print(f"\n{_memory_table(found.memory)}")
    if found.latency:
        print(f"\n{_latency_table(found.latency)}")
    write_json(options, found.summary())


def _report(rows: Sequence[Stage], classes: Sequence[Any], threshold: float) -> str:
    accuracy = rows[0].accuracy
    measured = (accuracy.metric.title, "drift, points [95 %]")
    head = ("stage", *measured, f"recall at {threshold}", "change [95 %]", "precision")
    lines = [(*head, "score shift [5, 95 %]", "lost")]
    for row in rows:
        found, shift = row.recall, row.shift
        change = "" if found.points is None else f"{found.points:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        moved = "" if shift is None else f"{shift.mean:+.4f} [{shift.low:+.3f}, {shift.high:+.3f}]"
        cells = (f"{row.accuracy.map5095:.4f}", str(row.drift or ""), f"{found.recall:.4f}", change)
        lost = "" if shift is None else f"{100 * shift.lost:.2f} %"
        lines.append((row.name, *cells, f"{found.precision:.4f}", moved, lost))
    worst = [("class", "boxes", rows[0].name, f"{rows[-1].name}, points")]
    worst += [(name, str(boxes), f"{ap:.4f}", f"{points:+.2f}") for name, boxes, ap, points in classes]
    seen = f"{accuracy.images} images, {accuracy.boxes} {accuracy.metric.labels}"
    said = f"shift and lost: of the predictions that {rows[0].name} made with {threshold} or more"
    return f"{table(lines)}\n{seen}; {said}" + (f"\n\n{table(worst)}" if classes else "")


def _memory_table(rows: Sequence[Memory]) -> str:
    return table(
        [("file", "MB on disk", "peak MB"), *((row.name, f"{row.file:.2f}", f"{row.peak:.0f}") for row in rows)]
    )


def _latency_table(grid: Sequence[tuple[int, Latency]]) -> str:
    lines: list[tuple[str, ...]] = [("file", "threads", "p10, ms", "median", "p90", "ms an image", "speed [95 %]")]
    for threads, one in grid:
        times = (f"{one.p10:.1f}", f"{one.median:.1f}", f"{one.p90:.1f}", f"{one.median / one.shape[0]:.1f}")
        speed = f"{one.speed:.2f}x [{one.speed_low:.2f}, {one.speed_high:.2f}]"
        lines.append((one.path.name, str(threads), *times, speed))
    return table(lines)


COMMAND = Command(
    name="drift",
    help="accuracy, confidence and classes at each stage from float to the target's runtime",
    example="fxqat drift yolov8n_ptq.fxqat --float yolov8n.pt --data coco.yaml",
    arguments=arguments,
    run=run,
)
