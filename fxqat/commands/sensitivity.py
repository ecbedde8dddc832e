"""sensitivity: which sites the accuracy hangs on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fxqat.commands.arguments import WORK, add_images, add_patterns, add_policy, add_quiet, add_trust
from fxqat.commands.command import Command, check_counts, image_size, write_json
from fxqat.commands.progress import progress
from fxqat.commands.tables import table

if TYPE_CHECKING:
    from fxqat.models.detector import Detector
    from fxqat.sensitivity.sensitivity import Sensitivity, SensitivityOptions


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat sensitivity`` takes."""
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt with --policy, or a calibrated .fxqat")
    add_policy(parser, "what to quantize")
    add_images(parser, limit=32, batch=8)
    parser.add_argument(
        "--by",
        default="probe",
        metavar="WAY",
        help="probe: the output's divergence from gradients, one pass for all sites; output: the same measured, site "
        "by site; mAP: points lost, a validation a site (default: %(default)s)",
    )
    parser.add_argument("--group", default="site", help="site, or block for whole blocks (default: %(default)s)")
    parser.add_argument("--leave-one-out", action="store_true", help="quantize all but one, instead of one alone")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SITE", help="measure only this; may be given again"
    )
    parser.add_argument(
        "--check",
        type=int,
        default=0,
        metavar="N",
        help="measure N sites, spread over the ranking, by output and by mAP too, and tell how the rankings agree",
    )
    parser.add_argument(
        "--check-images", type=int, metavar="N", help="images of --check's validations (default: as --images)"
    )
    parser.add_argument("--probes", type=int, default=4, help="random directions an image (default: %(default)s)")
    parser.add_argument("--split", default="val", help="labelled split, for mAP (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=20, help="sites to print; 0 prints all (default: %(default)s)")
    parser.add_argument("--work", default="fxqat_work", metavar="DIR", help=WORK)
    parser.add_argument("--json", metavar="FILE", help="write every site here, too")
    add_patterns(parser)
    add_trust(parser)
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat sensitivity``."""
    from fxqat.sensitivity.sensitivity import SensitivityOptions, measure

    check_counts(options)
    asked = SensitivityOptions(
        by=options.by,
        group=options.group,
        leave_one_out=options.leave_one_out,
        images_limit=options.images,
        probes=options.probes,
        split=options.split,
        only=tuple(options.only),
    )
    model = _calibrated(options)
    asked = replace(asked, imgsz=image_size(options, model))
    with progress(f"sensitivity by {asked.by}", options.quiet) as step:
        found = measure(model, options.data, asked, work=options.work, progress=step)
    print(_table(found, options.rows))
    summary = found.summary()
    if options.check:
        summary["check"] = _agreement(model, found, asked, options)
    write_json(options, summary)


def _calibrated(options: Namespace) -> Detector:
    """A calibrated .fxqat as it is, or a .pt under ``--policy``, calibrated on the images of ``--data``."""
    import fxqat
    from fxqat.errors import Problem

    is_made = str(options.model).endswith(".fxqat")
    if is_made == bool(options.policy):
        what = "carries its policy" if is_made else "has no policy"
        raise Problem(options.model, what, remedy="leave out --policy" if is_made else "give --policy")
    if is_made:
        return fxqat.load(options.model)
    model, _ = fxqat.prepare(fxqat.load(options.model, trust=options.trust), options.policy, patterns=options.patterns)
    with progress("calibrating", options.quiet) as step:
        return fxqat.calibrate(
            model,
            options.data,
            images_limit=options.images,
            imgsz=options.imgsz,
            batch=options.batch,
            progress=step,
        )


def _table(found: Sensitivity, count: int) -> str:
    unit, factor = ("points", 1.0) if found.by == "mAP" else ("millinats", 1e3)
    lines: list[tuple[str, ...]] = [("site", f"alone, {unit}", "share", "left out", "share")]
    rows = found.sorted()
    columns = ("alone", "without")
    sums = {name: sum(max(getattr(row, name) or 0.0, 0.0) for row in rows) or 1.0 for name in columns}
    for row in rows[: count or None]:
        cells: list[str] = []
        for name in columns:
            value = getattr(row, name)
            cells += ["", ""] if value is None else [f"{factor * value:.3f}", f"{100 * value / sums[name]:.1f} %"]
        lines.append((row.site, *cells))
    total = "" if found.total is None else f"; everything quantized: {factor * found.total:.3f} {unit}"
    more = f"; {len(rows) - len(lines) + 1} more with --rows 0" if len(rows) >= len(lines) else ""
    return f"{table(lines)}\n{len(found.rows)} of {found.policy}, {found.images} images{total}{more}"


def _agreement(model: Detector, found: Sensitivity, asked: SensitivityOptions, options: Namespace) -> dict[str, Any]:
    """Rank correlations of the ranking found with others, on sites spread over it."""
    from fxqat.sensitivity.sensitivity import WAYS, measure

    rows = found.sorted()
    count = min(options.check, len(rows))
    chosen = [rows[index * len(rows) // count] for index in range(count)]
    column = "alone" if rows[0].alone is not None and not asked.leave_one_out else "without"
    check: dict[str, Any] = {"sites": [row.site for row in chosen], found.by: [getattr(row, column) for row in chosen]}
    sites = tuple(row.site for row in chosen)
    for way in (way for way in WAYS[1:] if way != found.by):
        count = (options.check_images or asked.images_limit) if way == "mAP" else asked.images_limit
        wanted = replace(asked, by=way, only=sites, images_limit=count)
        with progress(f"checking by {way}", options.quiet) as step:
            other = measure(model, options.data, wanted, work=options.work, progress=step)
        values = {row.site: getattr(row, column) for row in other.rows}
        check[way] = [values[site] for site in sites]
        if way == "mAP":
            check["disagreement"] = [_harm(other.disagreements, site, asked) for site in sites]
    _print_check(check, found.by)
    return check


def _harm(disagreements: Mapping[str, float], site: str, asked: SensitivityOptions) -> float:
    """Larger is worse: left out, a harmful site leaves little disagreement behind."""
    return -disagreements[site] if asked.leave_one_out else disagreements[site]


def _print_check(check: dict[str, Any], by: str) -> None:
    """Every site's harm by each way, and how the rankings agree; correlations are added to ``check``."""
    from fxqat.sensitivity.sensitivity import spearman

    formats = {
        "probe": (1e3, "millinats"),
        "output": (1e3, "millinats"),
        "mAP": (1, "points"),
        "disagreement": (100, "%"),
    }
    ways = [by, *(way for way in formats if way in check and way != by)]
    lines = [("checked site", *(f"{way}, {formats[way][1]}" for way in ways))]
    for index, site in enumerate(check["sites"]):
        lines.append((site, *(f"{formats[way][0] * check[way][index]:.3f}" for way in ways)))
    print(f"\n{table(lines)}")
    for way in ways[1:]:
        found = check[f"spearman_{way}"] = spearman(check[by], check[way])
        count = len(check["sites"])
        print(f"rank correlation of {by} with {way} on {count} sites (Spearman): {found:+.2f}")


COMMAND = Command(
    name="sensitivity",
    help="which sites the accuracy hangs on: one at a time quantized, or left out",
    example="fxqat sensitivity yolov8n.pt --policy w8a8 --data coco128.yaml",
    arguments=arguments,
    run=run,
)
