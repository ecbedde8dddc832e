"""search: the fastest policy within a budget of accuracy."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import WORK, add_image_size, add_output, add_quiet, add_trust
from fxqat.commands.command import Command, check_counts, default_name, output, write_json
from fxqat.commands.progress import Phases
from fxqat.commands.tables import table

if TYPE_CHECKING:
    from fxqat.search.search_result import SearchResult


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat search`` takes."""
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
        default="w8a8",
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
    add_image_size(parser, "as trained, or 640")
    parser.add_argument("--split", default="val", help="split that judges (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads when timing (default: %(default)s)")
    parser.add_argument("--work", default="fxqat_work", metavar="DIR", help=WORK)
    parser.add_argument("--json", metavar="FILE", help="write every decision and number here, too")
    add_output(parser, "MODEL_found.yaml in this folder")
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat search``."""
    from fxqat.files import write_text
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
    with Phases(options.quiet) as shown:
        found = search(
            options.model,
            options.data,
            base=options.base,
            budget=budget,
            work=options.work,
            trust=options.trust,
            progress=shown.step,
        )
    write_text(path, found.policy)
    print(_report(found, options.max_drop))
    print(f"wrote {path}")
    write_json(options, found.summary())


def _check_target(options: Namespace) -> None:
    from fxqat.errors import Problem
    from fxqat.policy import Policy

    mine = Policy.load(options.base).target.name
    if options.target not in (None, mine):
        raise Problem(
            "--target", f"{options.target}, but {options.base} is for {mine}", remedy="give a policy for it with --from"
        )


def _report(found: SearchResult, max_drop: float) -> str:
    lines = [("layers in float", "ms predicted", "ms measured", "error predicted", "disagrees with float", "")]
    whole = found.base.candidate.divergence or 1.0
    for seen in found.front:
        times = (f"{seen.predicted:.2f}", f"{seen.milliseconds:.2f}")
        errors = (f"{100 * seen.divergence / whole:.0f} %", f"{100 * seen.disagreement:.3f} %")
        lines.append((_few(seen.left), *times, *errors, "<- found" if seen is found.best.candidate else ""))
    rows = [("measured", found.base.accuracy.metric.title, "drift, points [95 %]", "ms", "speed [95 %]", "MB")]
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


COMMAND = Command(
    name="search",
    help="the fastest policy within a budget of accuracy, with a reason on each line",
    example="fxqat search yolov8n.pt --data coco128.yaml --max-drop 0.2 -o best.yaml",
    arguments=arguments,
    run=run,
)
