"""analyze, sensitivity, search, drift: what quantization costs, where, and the policy that follows."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.command import Command, add_images, add_patterns, add_quiet, check_counts, progress, say_skipped

if TYPE_CHECKING:
    from fxqat.analyze.error import ErrorReport


def _analyze_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    parser.add_argument("glob", nargs="?", default="**", metavar="GLOB", help="only these sites, such as 'model.22.**'")
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
    add_patterns(parser)
    add_quiet(parser)


def _analyze(options: Namespace) -> None:
    import fxqat
    from fxqat.analyze.error import analyze, check_calibrated, check_column, check_probes
    from fxqat.files import check_writable, write_text
    from fxqat.yolo import images

    check_counts(options)
    check_probes(options.probes)
    check_column(options.by)
    for path in filter(None, (options.csv, options.json)):
        check_writable(path)
    model = fxqat.load(options.model, patterns=options.patterns)
    check_calibrated(model, "analyze")
    found = images.image_paths(options.data, limit=options.images)
    skipped: list[tuple[Path, str]] = []
    with progress("analyzing", options.quiet) as step:
        batches = images.batches(found, options.imgsz, 1, lambda path, why: skipped.append((path, why)))
        report = analyze(model, batches, probes=options.probes, progress=lambda done: step(done, len(found)))
    say_skipped(skipped)
    print(_analyze_table(report, options))
    if options.csv:
        write_text(options.csv, report.csv())
    if options.json:
        write_text(options.json, json.dumps(report.summary(), indent=2) + "\n")
    if options.plots:
        from fxqat.analyze.plots import draw

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
            f"box logits {report.output.boxes_sqnr:.1f} dB, class logits {report.output.scores_sqnr:.1f} dB",
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


COMMANDS: tuple[Command, ...] = (
    Command(
        name="analyze",
        help="the error of each quantizer: at its tensor, alone at the output, and gathered",
        example="fxqat analyze yolov8n_ptq.fxqat --data coco128.yaml",
        arguments=_analyze_arguments,
        run=_analyze,
    ),
)
