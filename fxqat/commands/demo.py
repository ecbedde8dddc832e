"""demo: the main job with nothing at hand, on drawn traffic signs and the detector in the package."""

from __future__ import annotations

import shutil
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands import calibrate, convert, demo_data, export, prepare, train
from fxqat.commands.arguments import add_quiet
from fxqat.commands.command import Command, fail, write_json
from fxqat.commands.progress import progress
from fxqat.commands.steps import say, step

if TYPE_CHECKING:
    from fxqat.evaluation.comparison import ComparisonRow
    from fxqat.runtime.verify import Verification


IMGSZ = 320
_PICTURES = 2
# Five times the default rate: these are the images it learns to detect, labels and all.
_TRAINING = ("--epochs", 2, "--batch", 8, "--no-unlabelled", "--distill", 1, "--set", "lr0=1e-5")
_NAMES = {
    "qat": "signs.fxqat",
    "ptq": "signs_ptq.fxqat",
    "trained": "signs_qat.fxqat",
    "reference": "signs_qat_int8.fxqat",
    "ptq_onnx": "signs_int8.onnx",
    "qat_onnx": "signs_qat_int8.onnx",
    "fp32": "signs.onnx",
}
_STEPS = {one.COMMAND.name: one.COMMAND for one in (prepare, calibrate, train, convert, export)}


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat demo`` takes."""
    parser.add_argument(
        "-o",
        "--output",
        dest="folder",
        default="demo-data",
        metavar="DIR",
        help="folder to work in (default: demo-data)",
    )
    parser.add_argument("--images", type=int, default=400, metavar="N", help="images to draw (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make again what is there already")
    parser.add_argument("--json", metavar="FILE", help="write every number here, too")
    add_quiet(parser)


def run(options: Namespace) -> None:
    """From nothing to a proven INT8 file; every step is shown as the command that does it on a model of your own."""
    from fxqat.files import make_folder
    from fxqat.runtime.bound import BOUND
    from fxqat.runtime.exactness import inexact_here

    start, folder = time.perf_counter(), Path(options.folder)
    make_folder(folder, "-o")
    weights, data = _materials(folder, options)
    made = _chain(folder, weights, data, options)
    rows = _validate([made[key] for key in ("fp32", "ptq_onnx", "qat_onnx")], data, options)
    found = _verify(made, data, options)
    print("\n" + _table(rows))
    picture = _picture(folder, made)
    print(f"\nwrote {picture}; {time.perf_counter() - start:.0f} s in all")
    write_json(options, {"models": [row.summary() for row in rows], "verified": found.summary()["totals"]})
    if failure := found.failure(BOUND):
        fail(f"{failure}; {inexact_here(made['qat_onnx']) or 'the cause is not the processor: please report it'}")


def _materials(folder: Path, options: Namespace) -> tuple[Path, Path]:
    """The trained detector and the drawn data set."""
    import fxqat.demo

    weights = folder / "signs.pt"
    shutil.copyfile(Path(fxqat.demo.__file__).with_name("signs_yolov8n.pt"), weights)
    say("demo-data", folder / "data", "--images", options.images)
    demo_data.run(Namespace(out=folder / "data", images=options.images, seed=0, quiet=options.quiet))
    return weights, folder / "data" / "data.yaml"


def _chain(folder: Path, weights: Path, data: Path, options: Namespace) -> dict[str, Path]:
    """prepare, calibrate, train, convert, export, each by its command line; what a run before this one left is kept."""
    made = {key: folder / name for key, name in _NAMES.items()}
    images, sized = data.parent / "images" / "calibration", ("--imgsz", IMGSZ)
    steps: tuple[tuple[str, tuple[object, ...]], ...] = (
        ("qat", ("prepare", weights, "--policy", "critical")),
        ("ptq", ("calibrate", made["qat"], "--data", images, *sized)),
        ("trained", ("train", made["ptq"], "--data", data, *sized, *_TRAINING)),
        ("reference", ("convert", made["trained"])),
        ("qat_onnx", ("export", made["reference"], *sized)),
        ("ptq_onnx", ("export", made["ptq"], *sized)),
        ("fp32", ("export", weights, *sized)),
    )
    for key, words in steps:
        words = (*words, "-o", made[key])
        say(*words)
        if made[key].exists() and not options.fresh:
            print(f"kept {made[key]}")
        else:
            step(_STEPS[str(words[0])], *words[1:], quiet=options.quiet, told=False)
    return made


def _validate(models: list[Path], data: Path, options: Namespace) -> list[ComparisonRow]:
    from fxqat.evaluation.comparison import compare

    say("val", *models, "--data", data, "--imgsz", IMGSZ)
    with progress("validating", options.quiet) as count:
        return compare(models, data, imgsz=IMGSZ, progress=count)


def _verify(made: dict[str, Path], data: Path, options: Namespace) -> Verification:
    """Count differing codes."""
    import fxqat

    images = data.parent / "images" / "calibration"
    say("verify", made["trained"], "--onnx", made["qat_onnx"], "--data", images, "--imgsz", IMGSZ, "--images", 4)
    with progress("verifying", options.quiet) as count:
        found = fxqat.verify(
            fxqat.load(made["trained"]), made["qat_onnx"], images, images_limit=4, imgsz=IMGSZ, progress=count
        )
    total = found.total("reference_runtime")
    print(f"INT8 reference graph against ONNX Runtime: {total.differing} of {total.codes} codes differ")
    return found


def _picture(folder: Path, made: dict[str, Path]) -> Path:
    """What both files detect in the validation images with the most signs."""
    from fxqat.models.drawing import side_by_side

    labels = sorted((folder / "data" / "labels" / "val").glob("*.txt"))
    crowded = sorted(labels, key=lambda file: -len(file.read_text().splitlines()))[:_PICTURES]
    images = [folder / "data" / "images" / "val" / f"{file.stem}.jpg" for file in crowded]
    models = [("FP32", made["fp32"]), ("INT8", made["qat_onnx"])]
    return side_by_side(models, images, folder / "detections.jpg", imgsz=IMGSZ)


def _table(rows: list[ComparisonRow]) -> str:
    """FP32 first; drift and speed against it."""
    labels = ("ONNX FP32", "ONNX INT8, calibrated", "ONNX INT8, trained")
    lines = [f"{'':<22}{'mAP50-95':>9}{'mAP50':>8}  {'drift, points [95 %]':<23}{'MB':>5}{'ms':>7}{'speed':>8}"]
    for label, row in zip(labels, rows, strict=True):
        found = row.accuracy
        speed = rows[0].milliseconds / row.milliseconds
        lines.append(
            f"{label:<22}{found.map5095:>9.4f}{found.map50:>8.4f}  {row.drift or ''!s:<23}"
            f"{row.megabytes:>5.1f}{row.milliseconds:>7.1f}{speed:>7.2f}x"
        )
    return "\n".join([*lines, f"{rows[0].accuracy.images} images, {rows[0].accuracy.boxes} signs"])


COMMAND = Command(
    name="demo",
    help="the main job from nothing: data, FP32, INT8, proof, picture",
    example="fxqat demo",
    arguments=arguments,
    run=run,
)
