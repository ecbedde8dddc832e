"""Quantization-aware training against its own PTQ: ``python -m bench.qat --weights W.pt --train D --data V --work F``.

Trains each wanted row (policy x variant x seed), exports it, and measures the ONNX file in ONNX Runtime on ``--data``
against the float ONNX and against the same policy's PTQ (same images, paired bootstrap), and how far raw outputs are
from the float network's before and after (fxqat.models.links, nats, no labels). The best epoch is chosen on
the val split of ``--train``, so ``--data`` chooses nothing. Every result is kept in ``--work``: called again, the
program goes on where it was cut off, and ``--table`` prints what is there without computing. The trained detectors are
kept there too, for ``fxqat drift`` and ``fxqat report``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import fxqat
from bench.command import parser, run
from bench.training_set import AUGMENTATION, as_ultralytics
from fxqat.checkpoint.fxqat_format import versions
from fxqat.errors import Problem
from fxqat.evaluation.accuracy import Accuracy, evaluate, from_onnx
from fxqat.evaluation.accuracy_file import read, write
from fxqat.evaluation.bootstrap import Drift, paired_drift
from fxqat.files import write_text
from fxqat.models.detector import Detector
from fxqat.sensitivity.output_divergence import FloatOutputs, shown, summary

USUAL = "unlabelled"
UNLABELLED: Mapping[str, Any] = {"unlabelled": True, "lsq": True}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    USUAL: UNLABELLED,
    "fixed scales": {**UNLABELLED, "lsq": False},
    "feature maps too": {**UNLABELLED, "features": 1.0},
    "penalty": {**UNLABELLED, "penalty": 0.1},
    "progressive": {**UNLABELLED, "progressive": {"model.1?.**": 1, "model.2[01].**": 1, "model.22.**": 2}},
    "live batch norms": {**UNLABELLED, "freeze_bn": 1.0},
    "Ultralytics' augmentation": {**UNLABELLED, **as_ultralytics(*AUGMENTATION)},
    "labels": {"lsq": True, "unlabelled": False, "distill": 0.0},
    "labels, distillation beside": {"lsq": True, "unlabelled": False, "distill": 1.0},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training."""

    policy: str
    variant: str
    seed: int
    epochs: int
    set: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Of its files."""
        words = f"{self.policy} {self.variant} {self.epochs} {self.seed} {' '.join(self.set)}".strip()
        return "".join(letter if letter.isalnum() else "_" for letter in words)


def row_of(kept: Mapping[str, Any], **other: Any) -> Row:
    """The row whose result ``kept`` is, ``other`` fields changed."""
    named = {one.name: kept[one.name] for one in fields(Row)} | other
    return Row(**{**named, "set": tuple(named["set"])})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not there yet, print the table; exit code 2 for bad input."""
    return run(_parser().parse_args(arguments), _measured)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for row in _wanted(options):
            measure(row, options, work)
    results = kept_rows(work)
    print(table(results, work))
    return {"versions": versions(), "rows": results}


def measure(row: Row, options: argparse.Namespace, work: Path) -> None:
    """Train, export and evaluate ``row``, unless its result is there."""
    result = work / f"{row.stem}.json"
    if result.is_file():
        return
    base = _accuracy(work / "float", options, lambda: fxqat.load(options.weights))
    ptq = _calibrated(row.policy, options, work)
    before = _accuracy(work / f"{row.policy}_ptq", options, lambda: ptq)
    began, resume = time.monotonic(), (work / row.stem / "weights/state.safetensors").is_file()
    chosen: dict[str, Any] = {**VARIANTS[row.variant], **dict(_pair(text) for text in row.set)}
    trained = fxqat.train(
        ptq,
        options.train,
        folder=work / row.stem,
        teacher=fxqat.load(options.teacher) if options.teacher else None,
        resume=resume,
        imgsz=options.imgsz,
        on_line=lambda line: print(line, flush=True),
        **{"epochs": row.epochs, "seed": row.seed, "device": "cpu", "workers": 0, **chosen},
    )
    seconds = time.monotonic() - began
    fxqat.save(trained, work / f"{row.stem}.fxqat")
    apart = FloatOutputs(fxqat.load(options.weights), options.data, count=options.divergence, imgsz=options.imgsz)
    after = _accuracy(work / row.stem, options, lambda: trained)
    found = {
        **asdict(row),
        "float": base.map5095,
        "ptq": before.map5095,
        "qat": after.map5095,
        "ptq_drift": asdict(paired_drift(base, before)),
        "drift": asdict(paired_drift(base, after)),
        "gain": asdict(paired_drift(before, after)),
        "divergence": {"ptq": summary(apart.of(ptq)), "qat": summary(apart.of(trained))},
        "seconds": seconds,
        "resumed": resume,
        "validated": trained.recipe.training["map5095"],
        "best_epoch": trained.recipe.training["best_epoch"],
    }
    if options.check_end:
        exported = evaluate(from_onnx(work / f"{row.stem}.onnx"), options.train, imgsz=options.imgsz)
        found["exported_on_train_val"] = exported.map5095
    write_text(result, json.dumps(found, indent=2) + "\n")
    print(_line(found), flush=True)


def kept_rows(work: Path) -> list[dict[str, Any]]:
    """Every result in ``work``."""
    found = [json.loads(path.read_text()) for path in sorted(work.glob("*.json"))]
    return [one for one in found if "variant" in one]


def table(results: Sequence[Mapping[str, Any]], work: Path) -> str:
    """Seeds of one setting in one line: their mean, the lowest and highest; a variant against USUAL with the same seed,
    from what ``work`` keeps of both."""
    lines = [
        "| policy | training | epochs | seeds | PTQ | QAT, mean of seeds (lowest..highest) "
        "| against FP32, points [95 % of one seed] | against own PTQ | divergence, nats: PTQ, QAT | best epochs "
        f"| minutes | against {USUAL!r}, points [95 % of one seed] |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in results:
        key = (one["policy"], one["variant"], one["epochs"], " ".join(one["set"]))
        groups.setdefault(key, []).append(one)
    return "\n".join([*lines, *(_group(key, rows, work) for key, rows in groups.items())])


def _group(key: tuple[Any, ...], rows: Sequence[Mapping[str, Any]], work: Path) -> str:
    policy, variant, epochs, changed = key
    values = [row["qat"] for row in rows]
    drifts = [row["drift"]["points"] for row in rows]
    gains = [row["gain"]["points"] for row in rows]
    first = _drift(rows[0]["drift"])
    cells = (
        policy,
        f"{variant} {changed}".strip(),
        epochs,
        len(rows),
        f"{rows[0]['ptq']:.4f} ({rows[0]['ptq_drift']['points']:+.2f})",
        f"{statistics.mean(values):.4f} ({min(values):.4f}..{max(values):.4f})",
        f"{statistics.mean(drifts):+.2f} [{first.low:+.2f}, {first.high:+.2f}]",
        f"{statistics.mean(gains):+.2f} ({min(gains):+.2f}..{max(gains):+.2f})",
        _apart(rows),
        " ".join(str(row["best_epoch"]) for row in rows),
        _minutes(rows),
        _against_usual(rows, work),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _minutes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of trainings from start to end: what went on from a state says nothing."""
    whole = [row["seconds"] / 60 for row in rows if not row.get("resumed")]
    return f"{statistics.mean(whole):.1f}" if whole else "resumed"


def _against_usual(rows: Sequence[Mapping[str, Any]], work: Path) -> str:
    pairs = [(work / f"{row_of(one, variant=USUAL).stem}.npz", work / f"{row_of(one).stem}.npz") for one in rows]
    drifts = [paired_drift(read(usual), read(mine)) for usual, mine in pairs if usual != mine and usual.is_file()]
    if not drifts:
        return ""
    return f"{statistics.mean(one.points for one in drifts):+.2f} [{drifts[0].low:+.2f}, {drifts[0].high:+.2f}]"


def _apart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the seeds' mean; the PTQ is the same for all."""
    found = [row["divergence"] for row in rows]
    return f"{shown(found[0]['ptq'])}, {statistics.mean(one['qat']['mean'] for one in found):.4f}"


def _line(found: Mapping[str, Any]) -> str:
    name = f"{found['policy']}, {found['variant']}, seed {found['seed']}"
    drift, gain = _drift(found["drift"]), _drift(found["gain"])
    return (
        f"{name}: FP32 {found['float']:.4f}, PTQ {found['ptq']:.4f}, QAT {found['qat']:.4f}; against FP32 {drift}, "
        f"against PTQ {gain}; divergence {_apart([found])}; {found['seconds']:.0f} s"
    )


def _drift(plain: Mapping[str, Any]) -> Drift:
    return Drift(**{"changed": 0, **plain})  # rows of before it was counted; no table shows it


def _wanted(options: argparse.Namespace) -> Iterable[Row]:
    for policy in options.policy or ("critical", "w8a8", "w4a8"):
        for variant in options.variant or (USUAL,):
            if variant not in VARIANTS:
                raise Problem("--variant", f"unknown variant {variant!r}", expected=f"one of: {', '.join(VARIANTS)}")
            for seed in options.seed or (0,):
                yield Row(policy=policy, variant=variant, seed=seed, epochs=options.epochs, set=tuple(options.set))


def _calibrated(policy: str, options: argparse.Namespace, work: Path) -> Detector:
    path = work / f"{policy}_ptq.fxqat"
    if not path.is_file():
        prepared, _ = fxqat.prepare(fxqat.load(options.weights), policy)
        fxqat.save(fxqat.calibrate(prepared, options.train, imgsz=options.imgsz, images_limit=options.images), path)
    return fxqat.load(path)


def _accuracy(stem: Path, options: argparse.Namespace, make: Any) -> Accuracy:
    """The accuracy of what ``make`` gives, exported as ``stem``.onnx; kept beside it."""
    kept = stem.with_suffix(".npz")
    if not kept.is_file():
        path = stem.with_suffix(".onnx")
        fxqat.export(make(), path, imgsz=options.imgsz)
        write(evaluate(from_onnx(path), options.data, imgsz=options.imgsz, limit=options.images_val), kept)
    return read(kept)


def _pair(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _parser() -> argparse.ArgumentParser:
    made = parser("qat", __doc__)
    made.add_argument("--weights", required=True, metavar="FILE.pt")
    made.add_argument("--train", required=True, metavar="D", help="data set YAML to calibrate, train and choose on")
    made.add_argument("--data", required=True, metavar="V", help="data set YAML to evaluate on")
    made.add_argument("--work", required=True, metavar="FOLDER", help="where results are kept")
    made.add_argument("--policy", action="append", metavar="P", help="may be given again (default: the shipped)")
    made.add_argument("--variant", action="append", metavar="V", help=f"may be given again: {', '.join(VARIANTS)}")
    made.add_argument("--teacher", metavar="M", help="float checkpoint (default: the network as calibrated)")
    made.add_argument("--seed", action="append", type=int, metavar="N", help="may be given again (default: 0)")
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="another option of training")
    made.add_argument("--imgsz", type=int, default=640)
    made.add_argument("--images", type=int, help="calibrate on so many (default: all)")
    made.add_argument("--images-val", type=int, help="evaluate on so many (default: all)")
    made.add_argument("--divergence", type=int, default=64, help="images for it (default: %(default)s)")
    made.add_argument("--check-end", action="store_true", help="evaluate the export on the training's val split too")
    made.add_argument("--table", action="store_true", help="only print what is there")
    return made


if __name__ == "__main__":
    sys.exit(main())
