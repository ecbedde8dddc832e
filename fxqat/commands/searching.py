"""search, drift: the policy that the analysis comes to, and what each stage on the way to a file costs."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fxqat.commands.analyzing import WORK, table
from fxqat.commands.command import (
    Command,
    add_images,
    add_output,
    add_quiet,
    add_trust,
    check_counts,
    default_name,
    image_size,
    output,
    progress,
)

if TYPE_CHECKING:
    from fxqat.evaluation.drift import Stage
    from fxqat.evaluation.latency import Latency
    from fxqat.evaluation.memory import Memory
    from fxqat.search.search_result import Found


@contextmanager
def _phases(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar after another: ``step(what, done, total)`` starts a new one when ``what`` changes."""
    state: dict[str, Any] = {"what": "", "bar": None, "step": None}

    def step(what: str, done: int, total: int) -> None:
        if what != state["what"]:
            close()
            state["bar"] = progress(what, quiet)
            state.update(what=what, step=state["bar"].__enter__())
        state["step"](done, total)

    def close() -> None:
        if state["bar"] is not None:
            state["bar"].__exit__(None, None, None)
            state["bar"] = None

    try:
        yield step
    finally:
        close()


def _search_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.pt", help="a float detector")
    parser.add_argument(
        "--data", required=True, metavar="D", help="data set YAML: its train split calibrates, its val split judges"
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.2, metavar="P", help="points of mAP50-95 to lose (default: %(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="base",
        default="yolov8_w8a8",
        metavar="POLICY",
        help="where to start: what it has in float stays so (default: %(default)s)",
    )
    parser.add_argument("--target", metavar="T", help="the runtime; must be the policy's (default: the policy's)")
    parser.add_argument("--images", type=int, metavar="N", help="calibrate on so many (default: all)")
    parser.add_argument(
        "--probe-images", type=int, default=32, metavar="N", help="probe and compare on so many (default: %(default)s)"
    )
    parser.add_argument(
        "--candidates", type=int, default=6, metavar="N", help="layouts to build and time (default: %(default)s)"
    )
    parser.add_argument("--imgsz", type=int, default=640, help="pixels, square (default: %(default)s)")
    parser.add_argument("--split", default="val", help="split that judges (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads when timing (default: %(default)s)")
    parser.add_argument("--work", default="fxqat_work", metavar="DIR", help=WORK)
    parser.add_argument("--json", metavar="FILE", help="write every decision and number here, too")
    add_output(parser, "MODEL_found.yaml in this folder")
    add_trust(parser)
    add_quiet(parser)


def _search(options: Namespace) -> None:
    from fxqat.files import check_writable, write_text
    from fxqat.search.search import search
    from fxqat.search.search_result import Budget

    check_counts(options)
    budget = Budget(
        max_drop=options.max_drop,
        images_limit=options.images,
        probe_images=options.probe_images,
        imgsz=options.imgsz,
        threads=options.threads,
        split=options.split,
        candidates=options.candidates,
    )
    _check_target(options)
    path = output(options, Path(default_name(options.model, "_found.yaml")).name)
    if options.json:
        check_writable(options.json)
    with _phases(options.quiet) as step:
        found = search(
            options.model,
            options.data,
            base=options.base,
            budget=budget,
            work=options.work,
            trust=options.trust,
            progress=step,
        )
    write_text(path, found.policy)
    print(_search_report(found, options.max_drop))
    print(f"wrote {path}")
    if options.json:
        write_text(options.json, json.dumps(found.summary(), indent=2) + "\n")


def _check_target(options: Namespace) -> None:
    from fxqat.errors import Problem
    from fxqat.policy import Policy

    mine = Policy.load(options.base).target.name
    if options.target not in (None, mine):
        raise Problem(
            "--target", f"{options.target}, but {options.base} is for {mine}", remedy="give a policy for it with --from"
        )


def _search_report(found: Found, max_drop: float) -> str:
    lines = [("layers in float", "ms predicted", "ms measured", "error predicted", "disagrees with float", "")]
    whole = found.base.candidate.divergence or 1.0
    for seen in found.front:
        times = (f"{seen.predicted:.2f}", f"{seen.milliseconds:.2f}")
        errors = (f"{100 * seen.divergence / whole:.0f} %", f"{100 * seen.disagreement:.3f} %")
        lines.append((_few(seen.left), *times, *errors, "<- found" if seen is found.best.candidate else ""))
    rows = [("measured", "mAP50-95", "drift, points [95 %]", "ms", "speed [95 %]", "MB")]
    for name, one, latency in zip(("from", "found"), (found.base, found.best), found.latency[1:], strict=True):
        speed = f"{latency.speed:.2f}x [{latency.speed_low:.2f}, {latency.speed_high:.2f}]"
        figures = (f"{one.accuracy.map5095:.4f}", str(one.drift), f"{latency.median:.1f}", speed, f"{latency.size:.2f}")
        rows.append((name, *figures))
    verdict = "within" if found.within else "over"
    left = len(found.best.candidate.left)
    numbers = "".join(f"{one}{', taken' if one.helps else ''}\n" for one in found.numbers)
    return (
        f"{numbers}\n{table(lines)}\n(predicted from gradients and the profile; disagreement of boxes and scores where "
        f"float is confident, without labels)\n\n{table(rows)}\n"
        f"{left} layers in float; the drop is {verdict} the budget of {max_drop} points"
    )


def _few(left: Sequence[str], most: int = 2) -> str:
    """``7: model.0.conv, model.1.conv and 5 more``."""
    if not left:
        return "0"
    more = f" and {len(left) - most} more" if len(left) > most else ""
    return f"{len(left)}: {', '.join(left[:most])}{more}"


def _drift_arguments(parser: ArgumentParser) -> None:
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


def _drift(options: Namespace) -> None:
    import fxqat
    from fxqat.evaluation.drift_report import Asked, travel
    from fxqat.files import check_writable, temporary_folder, write_text
    from fxqat.sensitivity.error_report import check_calibrated

    check_counts(options)
    if options.json:
        check_writable(options.json)
    model = fxqat.load(options.model)
    check_calibrated(model, "drift")
    asked = Asked(
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
    with temporary_folder("fxqat-drift-") as folder, _phases(options.quiet) as step:
        found = travel(model, options.model, asked, folder, step)
    print(_drift_report(found.stages, found.classes[: options.classes], options.threshold))
    if found.memory:
        print(f"\n{_memory_table(found.memory)}")
    if found.latency:
        print(f"\n{_latency_table(found.latency)}")
    if options.json:
        write_text(options.json, json.dumps(found.summary(), indent=2) + "\n")


def _drift_report(rows: Sequence[Stage], classes: Sequence[Any], threshold: float) -> str:
    head = ("stage", "mAP50-95", "drift, points [95 %]", f"recall at {threshold}", "change [95 %]", "precision")
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
    accuracy = rows[0].accuracy
    return (
        f"{table(lines)}\n{accuracy.images} images, {accuracy.boxes} boxes; shift and lost: of the predictions that "
        f"{rows[0].name} made with {threshold} or more" + (f"\n\n{table(worst)}" if classes else "")
    )


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


COMMANDS = (
    Command(
        name="search",
        help="the fastest policy within a budget of accuracy, with a reason on each line",
        example="fxqat search yolov8n.pt --data coco128.yaml --max-drop 0.2 -o best.yaml",
        arguments=_search_arguments,
        run=_search,
    ),
    Command(
        name="drift",
        help="accuracy, confidence and classes at each stage from float to ONNX Runtime",
        example="fxqat drift yolov8n_ptq.fxqat --float yolov8n.pt --data coco.yaml",
        arguments=_drift_arguments,
        run=_drift,
    ),
)
