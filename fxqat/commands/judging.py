"""val, verify: how good it is, and whether what runs is what was trained."""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.command import Command, add_images, add_patterns, add_quiet, add_trust, check_counts, progress

if TYPE_CHECKING:
    from fxqat.analyze.compare import Compared
    from fxqat.deploy.verify import Verification


def _val_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=".pt, .fxqat or .onnx; the first is what the others are compared with",
    )
    add_images(parser, limit=None, batch=8)
    parser.add_argument("--split", default="val", help="split of the data set (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads when timing (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every number here, too")
    add_patterns(parser)
    add_trust(parser)
    add_quiet(parser)


def _val(options: Namespace) -> None:
    from fxqat.analyze.compare import compare
    from fxqat.files import check_writable, write_text

    check_counts(options)
    if options.json:
        check_writable(options.json)
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
            patterns=options.patterns,
            progress=step,
        )
    print(_val_table(rows))
    if options.json:
        write_text(options.json, json.dumps([row.summary() for row in rows], indent=2) + "\n")


def _val_table(rows: list[Compared]) -> str:
    head = ("model", "mAP50-95", "mAP50", "precision", "recall", "drift, points [95 %]", "MB", "ms")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        a = row.accuracy
        figures = (f"{value:.4f}" for value in (a.map5095, a.map50, a.precision, a.recall))
        lines.append((a.model, *figures, str(row.drift or ""), f"{row.megabytes:.2f}", f"{row.milliseconds:.1f}"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    a = rows[0].accuracy
    skipped = f", {len(a.skipped)} skipped: {', '.join(path.name for path, _ in a.skipped[:5])}" if a.skipped else ""
    return f"{text}\n{a.images} images, {a.boxes} boxes{skipped}"


def _verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="X.fxqat", help="calibrated or trained")
    parser.add_argument(
        "--onnx", metavar="FILE", help="the file exported from it (default: export one for the occasion)"
    )
    add_images(parser, limit=8, batch=1)
    parser.add_argument(
        "--rows",
        type=int,
        default=10,
        help="tensors to print, worst first; 0 prints all in order (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write every tensor's counts here, too")
    add_patterns(parser)
    add_quiet(parser)


def _verify(options: Namespace) -> None:
    import fxqat
    from fxqat.files import check_writable, write_text

    check_counts(options)
    if options.json:
        check_writable(options.json)
    model = fxqat.load(options.model, patterns=options.patterns)
    with tempfile.TemporaryDirectory(prefix="fxqat-verify-") as folder:
        onnx = options.onnx or fxqat.export(
            model, Path(folder) / "model.onnx", imgsz=options.imgsz, patterns=options.patterns
        )
        with progress("verifying", options.quiet) as step:
            found = fxqat.verify(
                model,
                onnx,
                options.data,
                images_limit=options.images,
                imgsz=options.imgsz,
                progress=step,
                patterns=options.patterns,
            )
    print(_verify_table(found, options.rows))
    if options.json:
        write_text(options.json, json.dumps(found.summary(), indent=2) + "\n")


_TITLES = {
    "trained_reference": "fake-quant / reference",
    "reference_runtime": "reference / ONNX Runtime",
    "trained_runtime": "fake-quant / ONNX Runtime",
}


def _verify_table(found: Verification, count: int) -> str:
    rows = list(found.rows)
    if count:
        rows = sorted(rows, key=lambda row: -row.reference_runtime.share)[:count]
    width = max(len(row.site) for row in rows)
    lines = [
        f"{'share of differing codes, largest LSB':<{width}}  "
        + "  ".join(f"{title:>25}" for title in _TITLES.values())
    ]
    for row in rows:
        cells = [getattr(row, pair) for pair in _TITLES]
        lines.append(f"{row.site:<{width}}  " + "  ".join(f"{cell.share:>19.2e} {cell.largest:>5d}" for cell in cells))
    totals = [found.total(pair) for pair in _TITLES]
    lines.append(
        f"{f'all {len(found.rows)} tensors':<{width}}  "
        + "  ".join(f"{cell.share:>19.2e} {cell.largest:>5d}" for cell in totals)
    )
    for pair, title in _TITLES.items():
        first = found.first(pair)
        lines.append(
            f"{title}: " + (f"worst {found.worst(pair).site}, first {first.site}" if first else "every code equal")
        )
    lines.append(
        f"{found.images} images; output differs by at most {found.output_error[0]:.3g} px "
        f"and {found.output_error[1]:.3g} in scores"
    )
    return "\n".join(lines)


COMMANDS = (
    Command(
        name="val",
        help="accuracy by Ultralytics' validator, drift with interval, size, latency",
        example="fxqat val yolov8n.pt yolov8n_int8.onnx --data coco.yaml",
        arguments=_val_arguments,
        run=_val,
    ),
    Command(
        name="verify",
        help="count differing codes: fake-quant graph, INT8 reference graph, ONNX Runtime",
        example="fxqat verify yolov8n_ptq.fxqat --data coco128.yaml",
        arguments=_verify_arguments,
        run=_verify,
    ),
)
