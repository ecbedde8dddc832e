"""analyze, sensitivity: what quantization costs, and where."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fxqat.commands.command import (
    Command,
    add_images,
    add_patterns,
    add_quiet,
    add_trust,
    check_counts,
    image_size,
    progress,
    say_skipped,
)

if TYPE_CHECKING:
    from fxqat.models.detector import Detector
    from fxqat.sensitivity.error_report import ErrorReport
    from fxqat.sensitivity.sensitivity import Asked, Sensitivity

WORK = "folder for finished rows, named by content; a second run goes on from there (default: %(default)s)"


def _analyze_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    parser.add_argument("glob", nargs="?", default="**", metavar="GLOB", help="only these sites, such as 'model.2.**'")
    add_images(parser, limit=32, batch=1)
    parser.add_argument(
        "--by", default="share", metavar="COLUMN", help="sort by it, worst first (default: %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=20, help="sites to print; 0 prints all (default: %(default)s)")
    parser.add_argument(
        "--probes",
        type=int,
        default=2,
        help="random directions an image, for what a quantizer alone does to the output (default: %(default)s)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write every site and column here, too")
    parser.add_argument("--json", metavar="FILE", help="the same as JSON")
    parser.add_argument("--plots", metavar="DIR", help="draw depth.png, share.png and ranges.png there")
    add_quiet(parser)


def _analyze(options: Namespace) -> None:
    import fxqat
    from fxqat.data import images
    from fxqat.files import check_writable, write_text
    from fxqat.sensitivity.error_report import analyze, check_calibrated, check_column, check_probes

    check_counts(options)
    check_probes(options.probes)
    check_column(options.by)
    for path in filter(None, (options.csv, options.json)):
        check_writable(path)
    model = fxqat.load(options.model)
    check_calibrated(model, "analyze")
    size = images.check_imgsz(image_size(options, model), model.stride)
    found = images.image_paths(options.data, limit=options.images)
    skipped: list[tuple[Path, str]] = []
    with progress("analyzing", options.quiet) as step:
        batches = images.batches(found, size, 1, lambda path, why: skipped.append((path, why)), fit=model.fit)
        report = analyze(model, batches, probes=options.probes, progress=lambda done: step(done, len(found)))
    say_skipped(skipped)
    print(_analyze_table(report, options))
    if options.csv:
        write_text(options.csv, report.csv())
    if options.json:
        write_text(options.json, json.dumps(report.summary(), indent=2) + "\n")
    if options.plots:
        from fxqat.sensitivity.error_plots import draw

        print("wrote " + ", ".join(map(str, draw(report, options.plots))))


_ANALYZE_HEAD = ("site", "share", "alone", "SQNR", "weight", "gathered", "clipped", "used", "codes")


def _analyze_table(report: ErrorReport, options: Namespace) -> str:
    rows = report.sorted(options.by, options.glob)
    if not rows:
        from fxqat.errors import Problem
        from fxqat.graph.site import nearest

        raise Problem(options.glob, "covers no site", remedy=nearest(options.glob, [row.site for row in report.rows]))
    lines = [_ANALYZE_HEAD]
    for row in rows[: options.rows or None]:
        effect = f"{1e3 * (row.alone + row.weight_alone):.3f}" if row.quantized else ""
        shares = (f"{100 * row.share:.1f} %" if row.quantized else "", effect)
        errors = (decibels(row.sqnr), decibels(row.weight_sqnr), decibels(row.accumulated_sqnr))
        lines.append((row.site, *shares, *errors, _percent(row.clipped), _percent(row.used), row.spec or "float"))
    quantized = sum(row.quantized for row in report.rows)
    more = f"; {len(rows) - len(lines) + 1} more with --rows 0" if len(rows) >= len(lines) else ""
    return "\n".join(
        (
            table(lines),
            f"{report.images} images, {quantized} quantized tensors{more}; worst by {options.by} first. SQNR of the "
            "values, of the weight, and with",
            "everything on, dB; alone: divergence of the output in thousandths of a nat with that site alone rounded; "
            "share: of their sum",
            f"output: {1e3 * report.output.divergence:.3f} thousandths of a nat with everything on "
            f"({1e3 * report.predicted:.3f} predicted from the sites), "
            + ", ".join(f"{title} {value:.1f} dB" for title, value in report.output.sqnr.items()),
        )
    )


def decibels(value: float | None) -> str:
    """One decimal; ``exact`` where there is no error."""
    if value is None:
        return ""
    return "exact" if math.isinf(value) and value > 0 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Plain columns, the first on the left, the others on the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


def _sensitivity_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="yolov8n.pt with --policy, or a calibrated .fxqat")
    parser.add_argument("--policy", metavar="P", help="what to quantize: a policy file, or a shipped one by name")
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


def _sensitivity(options: Namespace) -> None:
    from fxqat.files import check_writable, write_text
    from fxqat.sensitivity.sensitivity import Asked, measure

    check_counts(options)
    if options.json:
        check_writable(options.json)
    asked = Asked(
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
    print(_sensitivity_table(found, options.rows))
    summary = found.summary()
    if options.check:
        summary["check"] = _agreement(model, found, asked, options)
    if options.json:
        write_text(options.json, json.dumps(summary, indent=2) + "\n")


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


def _sensitivity_table(found: Sensitivity, count: int) -> str:
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


def _agreement(model: Detector, found: Sensitivity, asked: Asked, options: Namespace) -> dict[str, Any]:
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


def _harm(disagreements: Mapping[str, float], site: str, asked: Asked) -> float:
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


COMMANDS: tuple[Command, ...] = (
    Command(
        name="analyze",
        help="the error of each quantizer: at its tensor, alone at the output, and gathered",
        example="fxqat analyze yolov8n_ptq.fxqat --data coco128.yaml",
        arguments=_analyze_arguments,
        run=_analyze,
    ),
    Command(
        name="sensitivity",
        help="which sites the accuracy hangs on: one at a time quantized, or left out",
        example="fxqat sensitivity yolov8n.pt --policy yolov8_w8a8 --data coco128.yaml",
        arguments=_sensitivity_arguments,
        run=_sensitivity,
    ),
)
