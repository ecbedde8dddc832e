"""demo-data, demo: the main job with nothing at hand, on drawn traffic signs and the detector in the package."""

from __future__ import annotations

import shutil
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands import making
from fxqat.commands.command import Command, add_quiet, progress

if TYPE_CHECKING:
    from fxqat.analyze.compare import Compared

IMGSZ = 320
_PICTURES = 3


def _data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder to create")
    parser.add_argument("--images", type=int, default=600, metavar="N", help="images in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other scenes (default: 0)")
    add_quiet(parser)


def _data(options: Namespace) -> None:
    from fxqat.demo import make_dataset

    with progress("drawing", options.quiet) as step:
        path = make_dataset(options.out, images=options.images, seed=options.seed, progress=step)
    print(f"wrote {path}")


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", default="demo-data", metavar="DIR", help="folder to work in (default: demo-data)"
    )
    parser.add_argument("--images", type=int, default=400, metavar="N", help="images to draw (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make again what is there already")
    add_quiet(parser)


def _demo(options: Namespace) -> None:
    """From nothing to a proven INT8 file; every step is shown as the command that does it on a model of your own."""
    from fxqat.analyze.compare import compare
    from fxqat.yolo.picture import side_by_side

    start, folder = time.perf_counter(), Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    weights, data = _materials(folder, options)
    made = _chain(folder, weights, data, options)
    models = [made["fp32"], made["int8"], weights, made["ptq"], made["reference"]]
    print(f"$ fxqat val {' '.join(map(str, models))} --data {data} --imgsz {IMGSZ}", flush=True)
    with progress("validating", options.quiet) as step:
        rows = compare(models, data, imgsz=IMGSZ, progress=step)
    shown = sorted((folder / "data" / "images" / "val").glob("*.jpg"))[:_PICTURES]
    picture = side_by_side([("FP32", weights), ("INT8", made["int8"])], shown, folder / "detections.png", imgsz=IMGSZ)
    _verify(made, data, options)
    print(_table(rows))
    print(f"wrote {picture}; {time.perf_counter() - start:.0f} s in all")


def _materials(folder: Path, options: Namespace) -> tuple[Path, Path]:
    """The trained detector and the drawn data set."""
    import fxqat.demo

    weights = folder / "signs.pt"
    shutil.copyfile(Path(fxqat.demo.__file__).with_name("signs_yolov8n.pt"), weights)
    print(f"$ fxqat demo-data {folder / 'data'} --images {options.images}", flush=True)
    _data(Namespace(out=folder / "data", images=options.images, seed=0, quiet=options.quiet))
    return weights, folder / "data" / "data.yaml"


def _chain(folder: Path, weights: Path, data: Path, options: Namespace) -> dict[str, Path]:
    """prepare, calibrate, convert, export; what a run before this one left is kept."""
    names = {"qat": "signs.fxqat", "ptq": "signs_ptq.fxqat", "reference": "signs_int8.fxqat", "int8": "signs_int8.onnx"}
    made = {key: folder / name for key, name in {**names, "fp32": "signs.onnx"}.items()}
    quiet = {"patterns": [], "trust": False, "quiet": options.quiet}
    images = data.parent / "images" / "calibration"
    export = {"batch": 1, "dynamic": False, "opset": 20, "imgsz": IMGSZ, **quiet}
    steps = (
        (f"prepare {weights} --policy yolov8_critical", making.prepare, "qat",
         Namespace(model=str(weights), policy="yolov8_critical", classes=None, **quiet)),
        (f"calibrate {made['qat']} --data {images} --imgsz {IMGSZ}", making.calibrate, "ptq",
         Namespace(model=str(made["qat"]), data=str(images), images=None, imgsz=IMGSZ, batch=8, method=None, **quiet)),
        (f"convert {made['ptq']}", making.convert, "reference", Namespace(model=str(made["ptq"]), **quiet)),
        (f"export {made['reference']} --imgsz {IMGSZ}", making.export, "int8",
         Namespace(model=str(made["reference"]), **export)),
        (f"export {weights} --imgsz {IMGSZ}", making.export, "fp32", Namespace(model=str(weights), **export)),
    )  # fmt: skip
    for words, run, key, arguments in steps:
        print(f"$ fxqat {words} -o {made[key]}", flush=True)
        if made[key].exists() and not options.fresh:
            print(f"kept {made[key]}")
        else:
            run(Namespace(output=str(made[key]), **vars(arguments)))
    return made


def _verify(made: dict[str, Path], data: Path, options: Namespace) -> None:
    import fxqat

    images = data.parent / "images" / "calibration"
    print(f"$ fxqat verify {made['ptq']} --onnx {made['int8']} --data {images} --imgsz {IMGSZ} --images 4", flush=True)
    with progress("verifying", options.quiet) as step:
        found = fxqat.verify(fxqat.load(made["ptq"]), made["int8"], images, images_limit=4, imgsz=IMGSZ, progress=step)
    total = found.total("reference_runtime")
    print(f"reference graph against ONNX Runtime: {total.differing} of {total.codes} codes differ")


def _table(rows: list[Compared]) -> str:
    """FP32 first; speed against the FP32 file in the same runtime."""
    labels = ("ONNX FP32", "ONNX INT8", "torch FP32", "torch fake-quant", "torch INT8 reference")
    lines = [f"{'':<22}{'mAP50-95':>9}  {'drift, points [95 %]':<24}{'MB':>6}{'ms':>8}{'speed':>8}"]
    for label, row in zip(labels, rows, strict=True):
        runs = label.startswith("ONNX")
        speed = f"{rows[0].milliseconds / row.milliseconds:.2f}x" if runs else ""
        time_ = f"{row.milliseconds:.1f}" if runs else ""
        size = f"{row.megabytes:>6.1f}"
        lines.append(f"{label:<22}{row.accuracy.map5095:>9.4f}  {row.drift or ''!s:<24}{size}{time_:>8}{speed:>8}")
    return "\n".join([*lines, f"{rows[0].accuracy.images} images, {rows[0].accuracy.boxes} signs"])


COMMANDS = (
    Command(
        name="demo-data",
        help="draw traffic-sign scenes as a labelled data set",
        example="fxqat demo-data signs --images 600",
        arguments=_data_arguments,
        run=_data,
    ),
    Command(
        name="demo",
        help="the main job from nothing: data, FP32, INT8, proof, picture",
        example="fxqat demo",
        arguments=_demo_arguments,
        run=_demo,
    ),
)
