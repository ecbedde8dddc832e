"""verify: differing codes counted, or a file proven free of overflow."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_images, add_quiet
from fxqat.commands.command import Command, check_counts, fail, image_size, suffix_of, write_json
from fxqat.commands.progress import progress
from fxqat.errors import Problem
from fxqat.runtime.bound import BOUND

if TYPE_CHECKING:
    from fxqat.runtime.verify import Difference, Verification
    from fxqat.targets import Target


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat verify`` takes."""
    parser.add_argument(
        "model",
        metavar="X",
        help="calibrated or trained .fxqat, compared code by code on images; or an .onnx file, whose weights say "
        "without images whether 16-bit sums can overflow",
    )
    parser.add_argument(
        "--file", "--onnx", metavar="FILE", help="exported from it (default: export one for the occasion)"
    )
    add_images(parser, limit=8, batch=1, required=False)
    parser.add_argument(
        "--rows",
        type=int,
        default=10,
        help="tensors to print, worst first; 0 prints all in order (default: %(default)s)",
    )
    parser.add_argument(
        "--runtimes",
        metavar="LIST",
        help="of ort, ort-plain (no optimizations), onnx (onnx.reference, slow), openvino for an ONNX file, litert, "
        "litert-plain (reference kernels, slow) for a .tflite; with commas, or all (default: ort or litert)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail also for targets whose integer arithmetic the reference does not know (openvino, tensorrt)",
    )
    parser.add_argument(
        "--bound",
        type=float,
        default=BOUND,
        help="exit with code 1 when the first runtime and the reference differ in a larger share of all codes "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        metavar="T",
        help="tensorrt: hold an .onnx file against TensorRT's rules for Q/DQ, without a GPU (exit code 1 if it breaks "
        "one)",
    )
    parser.add_argument("--json", metavar="FILE", help="write every tensor's counts here, too")
    add_quiet(parser)


def run(options: Namespace) -> None:
    """``fxqat verify``."""
    import fxqat
    from fxqat.files import temporary_folder
    from fxqat.runtime.exactness import inexact_here
    from fxqat.targets import target_of
    from fxqat.workflow.stage_checks import expect_calibrated, expect_quantized

    check_counts(options)
    if options.target is not None:
        _hold_against_rules(options)
        return
    if options.model.endswith(".onnx"):
        _prove(options)
        return
    if options.data is None:
        raise Problem("--data", "is missing", expected="images to compare codes on", remedy="give --data")
    model = fxqat.load(options.model)
    expect_calibrated(model, "verify")
    expect_quantized(model, "verify")
    with temporary_folder("fxqat-verify-") as folder:
        size, name = image_size(options, model), f"model{suffix_of(model)}"
        file = options.file or fxqat.export(model, folder / name, imgsz=size, batch=options.batch)
        with progress("verifying", options.quiet) as step:
            found = fxqat.verify(
                model,
                file,
                options.data,
                images_limit=options.images,
                imgsz=options.imgsz,
                batch=options.batch,
                progress=step,
                runtimes=options.runtimes,
            )
        why = inexact_here(file, found.runtimes[0])
    print(_table(found, options.rows))
    write_json(options, found.summary())
    target = target_of(model.recipe.target)
    promised = options.strict or (target is not None and target.arithmetic is not None)
    if promised and (failure := found.failure(options.bound)):
        fail(f"{failure}; {why}" if why else failure)


def _hold_against_rules(options: Namespace) -> None:
    """What the rules of a target say of a file."""
    from fxqat.runtime.onnx.onnx_file import read
    from fxqat.runtime.onnx.tensorrt_rules import RULES, check

    if options.target != "tensorrt":
        raise Problem("--target", f"has no rules for {options.target!r}", expected="tensorrt")
    if not options.model.endswith(".onnx"):
        raise Problem(options.model, "is no .onnx file", expected="a file written by fxqat export --target tensorrt")
    found = check(read(Path(options.model)))
    print(found)
    sources = {rule.name: {"says": rule.says, "source": rule.source} for rule in RULES}
    write_json(options, {"rules": sources, **asdict(found)})
    if not found.quantized:
        fail(f"{options.model}: nothing in it is quantized; TensorRT would run it in float")
    if found.findings:
        first, *others = found.findings
        more = f", and {len(others)} more" if others else ""
        source = next(rule.source for rule in RULES if rule.name == first.rule)
        fail(f"{options.model}: {first} ({source}){more}")


def _prove(options: Namespace) -> None:
    """What the weights of a file say about 16-bit sums in each runtime that adds them."""
    from fxqat.runtime.exactness import REMEDY
    from fxqat.runtime.onnx.onnx_file import read
    from fxqat.runtime.onnx.overflow import prove
    from fxqat.runtime.runtimes import RUNTIMES
    from fxqat.targets import target_of

    proto, pairing = read(Path(options.model)), {one.title: one.pair_orders for one in RUNTIMES.values()}
    found = {title: prove(proto, orders) for title, orders in pairing.items() if orders}
    for title, proof in found.items():
        print(f"{title}: {proof}")
    write_json(options, {title: {**asdict(proof), "holds": proof.holds} for title, proof in found.items()})
    ours = str({one.key: one.value for one in proto.metadata_props}.get("target", ""))
    wanted = target_of(ours)
    judged = found if wanted is None else {title: found[title] for title in found if title == _title(wanted)}
    if broken := [title for title, proof in judged.items() if not proof.holds]:
        fail(f"{options.model}: 16-bit sums can overflow in {' and '.join(broken)}; {REMEDY}")


def _title(target: Target) -> str:
    from fxqat.runtime.runtimes import RUNTIMES

    return RUNTIMES[target.runtime].title if target.runtime in RUNTIMES else target.runtime


def _titles(found: Verification) -> dict[str, str]:
    from fxqat.runtime.runtimes import RUNTIMES

    first, *others = (RUNTIMES[name].title for name in found.runtimes)
    names = ("fake-quant / reference", f"reference / {first}", f"fake-quant / {first}")
    return dict(zip(found.pairs, [*names, *(f"reference / {other}" for other in others)], strict=True))


def _table(found: Verification, count: int) -> str:
    rows, titles = list(found.rows), _titles(found)
    widths = {pair: max(25, len(title)) for pair, title in titles.items()}
    if count:
        rows = sorted(rows, key=lambda row: -row.reference_runtime.share)[:count]
    width = max(len(row.site) for row in rows)
    lines = [
        f"{'share of differing codes, largest LSB':<{width}}  "
        + "  ".join(f"{title:>{widths[pair]}}" for pair, title in titles.items())
    ]
    for row in rows:
        lines.append(f"{row.site:<{width}}  " + _cells({pair: row.pair(pair) for pair in titles}, widths))
    totals = {pair: found.total(pair) for pair in titles}
    lines.append(f"{f'all {len(found.rows)} tensors':<{width}}  " + _cells(totals, widths))
    for pair, title in titles.items():
        first = found.first(pair)
        lines.append(
            f"{title}: " + (f"worst {found.worst(pair).site}, first {first.site}" if first else "every code equal")
        )
    lines.append(
        f"{found.images} images; output differs by at most "
        + " and ".join(f"{error:.3g} {unit}" for unit, error in found.output_error.items())
    )
    lines += [f"{name}: not installed" for name in found.missing]
    return "\n".join(lines)


def _cells(found: Mapping[str, Difference], widths: Mapping[str, int]) -> str:
    return "  ".join(f"{cell.share:>{widths[pair] - 6}.2e} {cell.largest:>5d}" for pair, cell in found.items())


COMMAND = Command(
    name="verify",
    help="count differing codes: fake-quant graph, INT8 reference graph, runtime; or prove a file free of overflow, or "
    "legal for TensorRT",
    example="fxqat verify yolov8n_ptq.fxqat --data coco128.yaml\nfxqat verify yolov8n_int8.onnx",
    arguments=arguments,
    run=run,
)
