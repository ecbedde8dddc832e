"""Damaged ONNX and .tflite files given to ``val`` and ``verify``: how many are refused with one line, and how many run.

    python -m bench.damaged_runtime_files [--count 1000] [--files X.onnx Y.tflite] [--seed 0] [--json FILE]

Each trial damages a copy of a file: it is cut short, bytes are changed, put in or taken out, or fields of the model
itself are changed and written again, so that the file is well-formed and means something else. ``val`` opens it and
predicts an image; ``verify`` compares it with the model that the file was exported from, or, where ``--files`` names
others, reads them alone. Trials run in copies of the process, so that a crash of a runtime is counted.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml

import fxqat
from bench.command import parser, run
from bench.damaged_checkpoints import ARCHITECTURE
from bench.isolation import CRASHED, HUNG, isolated
from fxqat.errors import Problem
from fxqat.evaluation.predictor import from_onnx
from fxqat.evaluation.tflite_predictor import from_tflite
from fxqat.models.detector import Detector
from fxqat.models.image_size import ImageSize
from fxqat.runtime.tflite.tflite_file import TFLiteFile, is_installed

Dice = random.Random
RunAll = Callable[[Callable[[int], str], int], Iterable[str]]
IMGSZ = 64
_NUMBERS = (-(2**31), -1, 0, 1, 2, 7, 255, 10**6, 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class Example:
    """A good file, and the model that it was exported from, where that is known."""

    path: Path
    model: Detector | None = None


def main() -> int:
    """Print the table."""
    options = parser("damaged_runtime_files", __doc__)
    options.add_argument("--count", type=int, default=1000, help="trials of each file (default 1000)")
    options.add_argument("--files", nargs="*", type=Path, default=[], help="instead of a small detector's")
    options.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    return run(options.parse_args(), measure)


def measure(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count the outcomes of each kind of damage, and print them.

    Raises:
        Problem: a trial ended in anything but a line or a prediction.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="damaged-") as name:
        folder = Path(name)
        given = [Example(path=path) for path in options.files] or list(examples(folder))
        rows = {one.path.suffix: trials(one, folder, options.count, options.seed) for one in given}
    counts = {f"{suffix}, {damage}": row for suffix, found in rows.items() for damage, row in found.items()}
    words = sorted({word for row in counts.values() for word in row})
    print(f"| damage | {' | '.join(words)} |\n| {' | '.join('---' for _ in range(1 + len(words)))} |")
    for key, row in counts.items():
        print(f"| {key} | {' | '.join(str(row[word]) for word in words)} |")
    if faults := sum(row[word] for row in counts.values() for word in row if word.startswith((CRASHED, HUNG))):
        raise Problem("damaged_runtime_files", f"{faults} trials crashed or hung", remedy="see above")
    return {key: dict(row) for key, row in counts.items()}


def examples(folder: Path) -> Iterator[Example]:
    """A small detector as ONNX, and as .tflite where that can be written here."""
    architecture = folder / "small.yaml"
    architecture.write_text(yaml.safe_dump({**ARCHITECTURE, "nc": 3}))
    for target, suffix in (("ort-cpu", ".onnx"), ("litert", ".tflite")):
        if suffix == ".tflite" and not is_installed("litert_torch"):
            print("no .tflite: litert_torch is not installed; give one with --files")
            continue
        qat, _ = fxqat.prepare(fxqat.load(architecture), "w8a8", target=target)
        calibrated = fxqat.calibrate(qat, [torch.rand(1, 3, IMGSZ, IMGSZ)])
        yield Example(path=fxqat.export(calibrated, folder / f"good{suffix}", imgsz=IMGSZ), model=calibrated)


def trials(
    example: Example, folder: Path, count: int, seed: int, run_all: RunAll = isolated
) -> dict[str, Counter[str]]:
    """``count`` damaged copies of a file, each given to ``val`` and ``verify`` by ``run_all``.

    Returns:
        For each kind of damage and command, how many were ``refused``, how many ``ran``, and how many ended otherwise.
    """
    content, suffix = example.path.read_bytes(), example.path.suffix
    kinds = {**DAMAGES, "fields changed": MEANINGS[suffix]}
    names, commands = list(kinds), {"val": val, "verify": verify}
    path = folder / f"damaged{suffix}"
    counts: dict[str, Counter[str]] = {f"{kind}, {command}": Counter() for kind in names for command in commands}

    def trial(number: int) -> str:
        index, command = divmod(number, len(commands))
        path.write_bytes(kinds[names[index % len(names)]](content, Dice(f"{seed} {index}")))
        return outcome(list(commands.values())[command], example, path)

    for number, word in enumerate(run_all(trial, count * len(commands))):
        index, command = divmod(number, len(commands))
        counts[f"{names[index % len(names)]}, {list(commands)[command]}"][word] += 1
    return counts


def outcome(act: Callable[[Example, Path], None], example: Example, path: Path) -> str:
    """``refused`` with one line, or ``ran``.

    Raises:
        Problem: the refusal has several lines.
    """
    try:
        act(example, path)
    except Problem as problem:
        if "\n" in str(problem):
            raise
        return "refused"
    return "ran"


def val(example: Example, path: Path) -> None:
    """What ``fxqat val`` does with a file: open it, and predict."""
    model = {".onnx": from_onnx, ".tflite": from_tflite}[path.suffix](path, threads=1)
    size = model.imgsz or ImageSize.of(IMGSZ)
    model(torch.zeros(2, 3, *size.shape))


def verify(example: Example, path: Path) -> None:
    """What ``fxqat verify X.fxqat --onnx FILE`` does with a file."""
    if example.model is None:
        from fxqat.runtime.sessions import fixed_sizes

        fixed_sizes(path)
    else:
        fxqat.verify(example.model, path, [torch.zeros(1, 3, IMGSZ, IMGSZ)], imgsz=IMGSZ)


def cut(content: bytes, dice: Dice) -> bytes:
    """The file without its end."""
    return content[: dice.randrange(len(content))]


def flip(content: bytes, dice: Dice) -> bytes:
    """One to eight bits changed."""
    words = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        words[dice.randrange(len(words))] ^= 1 << dice.randrange(8)
    return bytes(words)


def shift(content: bytes, dice: Dice) -> bytes:
    """Bytes put in, taken out or put into the place of others."""
    place, noise = dice.randrange(len(content)), dice.randbytes(dice.choice((1, 8, 100)))
    skipped = dice.choice((0, 1, len(noise)))
    return content[:place] + (noise if dice.random() < 0.7 else b"") + content[place + skipped :]


def other_onnx(content: bytes, dice: Dice) -> bytes:
    """One to three fields of an ONNX model changed."""
    proto = onnx.load_model_from_string(content)
    for _ in range(dice.randint(1, 3)):
        dice.choice(_ONNX)(proto, dice)
    return proto.SerializeToString()


def other_tflite(content: bytes, dice: Dice) -> bytes:
    """One to three fields of a .tflite model changed; the metadata behind it stay."""
    file = TFLiteFile(content)
    for _ in range(dice.randint(1, 3)):
        dice.choice(_TFLITE)(file, dice)
    written = file.content()
    return written + content[len(content) - _metadata_length(content) :]


def _metadata_length(content: bytes) -> int:
    start = content.find(b"PK\x03\x04")
    return len(content) - start if start >= 0 else 0


def _node_input(proto: onnx.ModelProto, dice: Dice) -> None:
    node = dice.choice([one for one in proto.graph.node if one.input])
    names = [name for one in proto.graph.node for name in one.output] + ["", "nothing"]
    node.input[dice.randrange(len(node.input))] = dice.choice(names)


def _node_type(proto: onnx.ModelProto, dice: Dice) -> None:
    node = dice.choice(proto.graph.node)
    node.op_type = dice.choice(["Identity", "Nothing", "", *(one.op_type for one in proto.graph.node)])


def _attribute(proto: onnx.ModelProto, dice: Dice) -> None:
    attribute = dice.choice([one for node in proto.graph.node for one in node.attribute])
    if attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(_NUMBERS)
    else:
        attribute.i = dice.choice(_NUMBERS)


def _dims(proto: onnx.ModelProto, dice: Dice) -> None:
    tensor = dice.choice([one for one in proto.graph.initializer if one.dims])
    tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(_NUMBERS)


def _data_type(proto: onnx.ModelProto, dice: Dice) -> None:
    dice.choice(proto.graph.initializer).data_type = dice.randrange(30)


def _border(proto: onnx.ModelProto, dice: Dice) -> None:
    value = dice.choice([*proto.graph.input, *proto.graph.output])
    dims = value.type.tensor_type.shape.dim
    if dice.random() < 0.3 or not dims:
        value.type.tensor_type.elem_type = dice.randrange(20)
    else:
        dims[dice.randrange(len(dims))].dim_value = dice.choice(_NUMBERS)


def _dropped(proto: onnx.ModelProto, dice: Dice) -> None:
    part = dice.choice([proto.graph.node, proto.graph.initializer, proto.graph.input, proto.graph.output])
    if part:
        del part[dice.randrange(len(part))]


def _property(proto: onnx.ModelProto, dice: Dice) -> None:
    entry = dice.choice(proto.metadata_props)
    entry.value = dice.choice(["", "None", "-1", "{}", "{0: 'a'}", "[", "\ud7ff", "detect", "x" * 1000])


def _version(proto: onnx.ModelProto, dice: Dice) -> None:
    if dice.random() < 0.5:
        proto.ir_version = dice.randrange(50)
    else:
        proto.opset_import[0].version = dice.randrange(50)


def _operand(file: TFLiteFile, dice: Dice) -> None:
    operation = dice.choice(file.graph.operators)
    name = dice.choice([name for name in ("inputs", "outputs") if getattr(operation, name) is not None])
    part = [int(index) for index in getattr(operation, name)]
    part[dice.randrange(len(part))] = dice.choice((-2, -1, 10**6, dice.randrange(len(file.graph.tensors))))
    setattr(operation, name, part)


def _opcode(file: TFLiteFile, dice: Dice) -> None:
    if dice.random() < 0.5:
        dice.choice(file.graph.operators).opcodeIndex = dice.choice((0, 1, 2, 10**6))
    else:
        code = dice.choice(file.model.operatorCodes)
        code.builtinCode = code.deprecatedBuiltinCode = dice.randrange(127)


def _tensor(file: TFLiteFile, dice: Dice) -> None:
    tensor = dice.choice(file.graph.tensors)
    kind = dice.randrange(4)
    if kind == 0:
        tensor.shape = [dice.choice(_NUMBERS) for _ in range(dice.randrange(6))]
    elif kind == 1:
        tensor.type = dice.randrange(20)
    elif kind == 2:
        tensor.buffer = dice.choice((0, 1, 10**6, dice.randrange(len(file.model.buffers))))
    elif tensor.quantization is not None:
        tensor.quantization.scale = dice.choice([[0.0], [-1.0], [float("nan")], [1e38], []])


def _options(file: TFLiteFile, dice: Dice) -> None:
    options = dice.choice([one.builtinOptions for one in file.graph.operators if one.builtinOptions is not None])
    if names := [name for name, value in vars(options).items() if type(value) is int]:
        setattr(options, dice.choice(names), dice.choice((-1, 0, 1, 3, 127)))


def _constant(file: TFLiteFile, dice: Dice) -> None:
    buffer = dice.choice([one for one in file.model.buffers if one.data is not None])
    buffer.data = buffer.data[: dice.randrange(len(buffer.data) + 1)]


def _ends(file: TFLiteFile, dice: Dice) -> None:
    ends = [dice.choice((-1, 10**6, dice.randrange(len(file.graph.tensors)))) for _ in range(dice.randrange(3))]
    setattr(file.graph, dice.choice(("inputs", "outputs")), ends)


_ONNX: tuple[Callable[[onnx.ModelProto, Dice], None], ...] = (
    *(_node_input, _node_type, _attribute, _dims, _data_type, _border, _dropped, _property, _version),
)
_TFLITE: tuple[Callable[[Any, Dice], None], ...] = (_operand, _opcode, _tensor, _options, _constant, _ends)
MEANINGS: Mapping[str, Callable[[bytes, Dice], bytes]] = {".onnx": other_onnx, ".tflite": other_tflite}
DAMAGES: Mapping[str, Callable[[bytes, Dice], bytes]] = {
    "cut short": cut,
    "bits changed": flip,
    "bytes put in or out": shift,
}

if __name__ == "__main__":
    sys.exit(main())
