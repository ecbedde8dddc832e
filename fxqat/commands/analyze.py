"""analyze: the error of each quantizer."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_images, add_quiet
from fxqat.commands.command import Command, check_counts, image_size, say_skipped, write_json
from fxqat.commands.progress import progress
from fxqat.commands.tables import decibels, percent, table

if TYPE_CHECKING:
    from fxqat.sensitivity.error_report import ErrorReport


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat analyze`` takes."""
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


def run(options: Namespace) -> None:
    """``fxqat analyze``."""
    import fxqat
    from fxqat.data import images
    from fxqat.files import write_text
    from fxqat.sensitivity.error_report import analyze, check_column, check_probes
    from fxqat.workflow.stage_checks import expect_calibrated, expect_quantized

    check_counts(options)
    check_probes(options.probes)
    check_column(options.by)
    model = fxqat.load(options.model)
    expect_calibrated(model, "analyze")
    expect_quantized(model, "analyze")
    size = image_size(options, model).checked(model.stride)
    found = images.image_paths(options.data, limit=options.images)
    skipped: list[tuple[Path, str]] = []
    with progress("analyzing", options.quiet) as step:
        batches = images.batches(found, size, 1, lambda path, why: skipped.append((path, why)), fit=model.fit)
        report = analyze(model, batches, probes=options.probes, progress=lambda done: step(done, len(found)))
    say_skipped(skipped)
    print(_table(report, options))
    if options.csv:
        write_text(options.csv, report.csv())
    write_json(options, report.summary())
    if options.plots:
        from fxqat.sensitivity.error_plots import draw

        print("wrote " + ", ".join(map(str, draw(report, options.plots))))


_HEAD = ("site", "share", "alone", "SQNR", "weight", "accumulated", "clipped", "used", "codes")


def _table(report: ErrorReport, options: Namespace) -> str:
    rows = report.sorted(options.by, options.glob)
    if not rows:
        from fxqat.errors import Problem
        from fxqat.graph.site import nearest

        raise Problem(options.glob, "covers no site", remedy=nearest(options.glob, [row.site for row in report.rows]))
    lines = [_HEAD]
    for row in rows[: options.rows or None]:
        effect = f"{1e3 * (row.alone + row.weight_alone):.3f}" if row.quantized else ""
        shares = (f"{100 * row.share:.1f} %" if row.quantized else "", effect)
        errors = (decibels(row.sqnr), decibels(row.weight_sqnr), decibels(row.accumulated_sqnr))
        lines.append((row.site, *shares, *errors, percent(row.clipped), percent(row.used), row.spec or "float"))
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


COMMAND = Command(
    name="analyze",
    help="the error of each quantizer: at its tensor, alone at the output, and accumulated over the network",
    example="fxqat analyze yolov8n_ptq.fxqat --data coco128.yaml",
    arguments=arguments,
    run=run,
)
