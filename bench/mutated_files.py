"""Files that are not what they were: damaged bytes, and graphs that were changed with their checksums put right.

Each is loaded. What comes of it must be a detector or a refusal of one line, and nothing that is forbidden may happen:
    python -m bench.mutated_files --graphs 300 --bytes 1000
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import fxqat
from fxqat.checkpoint import fxqat_format
from fxqat.errors import Problem

Random = random.Random
# Events of Python's audit hooks that reading a file has no use for.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")
CODE = "__import__('os').system('touch RAN')"
_ENDS = ("x", "", CODE, f"x=({CODE})", f'a"); {CODE}; ("', f"x, y={CODE}", "a.b", "__class__", "forward", "self")
_NODES = ({"node": 0}, {"node": 10**6}, {"node": -1})
_VALUES: tuple[Any, ...] = (None, True, -1, 0, 10**9, 10**30, 0.5, "", "x", CODE, [], {}, *_NODES)
_TARGETS = ("eval", "builtins.eval", "os.system", "torch.load", "getattr", "__reduce__", "torch.cat", "operator.add")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A good file taken apart: its header, graphs and tensors."""

    header: dict[str, Any]
    graphs: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Given:
        """Of a .fxqat file."""
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["fxqat"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return cls(header=header, graphs=fxqat_format._unpacked(tensors[fxqat_format._GRAPHS]), tensors=tensors)

    def write(self, path: Path, graphs: Any) -> None:
        """A file with other graphs and right checksums."""
        tensors = {**self.tensors, fxqat_format._GRAPHS: fxqat_format._packed(graphs)}
        header = {**self.header, "tensors_sha256": fxqat_format._digest(tensors)}
        save_file(tensors, path, metadata={"fxqat": json.dumps(header)})


def mutated(graphs: Any, chance: Random) -> tuple[str, Any]:
    """A copy of ``graphs`` with one thing changed, and what kind of thing."""
    kind = chance.choice(list(MUTATIONS))
    changed = copy.deepcopy(graphs)
    MUTATIONS[kind](changed["graph"], chance)
    return kind, changed


def outcome(path: Path) -> str:
    """``loaded`` or ``refused``, and how.

    Raises:
        AssertionError: the refusal has several lines.
    """
    try:
        model = fxqat.load(path)
    except Problem as problem:
        lines = str(problem).splitlines()
    else:
        model.gm.graph.lint()
        return "loaded"
    assert len(lines) == 1, lines
    return "refused"


def damaged(content: bytes, chance: Random) -> bytes:
    """``content`` cut off, with bytes changed, or with bytes put in."""
    place = chance.randrange(len(content))
    way = chance.randrange(3)
    if way == 0:
        return content[:place]
    noise = chance.randbytes(chance.choice((1, 8, 100)))
    return content[:place] + noise + content[place + (len(noise) if way == 1 else 0) :]


def watched() -> list[str]:
    """What is forbidden and happened, from now on; a process cannot stop watching."""
    seen: list[str] = []
    sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(FORBIDDEN) else None)
    return seen


def example(path: Path) -> Path:
    """A calibrated yolov8n with random weights, saved to ``path``."""
    qat, _ = fxqat.prepare(fxqat.load("yolov8n.yaml"), "critical")
    return fxqat.save(fxqat.calibrate(qat, [torch.rand(2, 3, 64, 64)]), path)


def _target(graph: Any, chance: Random) -> None:
    chance.choice(graph["nodes"])["target"] = chance.choice((*_TARGETS, *_ENDS))


def _operation(graph: Any, chance: Random) -> None:
    operations = ("call_function", "call_method", "call_module", "get_attr", "placeholder", "output", "exec")
    chance.choice(graph["nodes"])["op"] = chance.choice(operations)


def _name(graph: Any, chance: Random) -> None:
    chance.choice(graph["nodes"])["name"] = chance.choice((*_ENDS, graph["nodes"][0]["name"]))


def _keyword(graph: Any, chance: Random) -> None:
    chance.choice(graph["nodes"])["kwargs"] = {chance.choice(_ENDS): chance.choice(_VALUES)}


def _argument(graph: Any, chance: Random) -> None:
    node = chance.choice([one for one in graph["nodes"] if one.get("args")])
    node["args"][chance.randrange(len(node["args"]))] = chance.choice(_VALUES)


def _reference(graph: Any, chance: Random) -> None:
    """An argument that stands behind its reader, or a constant in constants without end."""
    node = chance.choice([one for one in graph["nodes"] if one.get("args")])
    deep: Any = {"node": len(graph["nodes"]) - 1}
    for _ in range(chance.choice((0, 3, 300))):
        deep = [deep]
    node["args"][0] = deep


def _order(graph: Any, chance: Random) -> None:
    a, b = (chance.randrange(len(graph["nodes"])) for _ in range(2))
    graph["nodes"][a], graph["nodes"][b] = graph["nodes"][b], graph["nodes"][a]


def _dropped(graph: Any, chance: Random) -> None:
    part = graph[chance.choice(("nodes", "modules", "notes"))]
    del part[chance.randrange(len(part))]


def _module_class(graph: Any, chance: Random) -> None:
    names = ("Conv2d", "Linear", "SiLU", "Module", "FakeQuantize", "QATConv2d", "os.system", "torch.nn.Bilinear", CODE)
    chance.choice(graph["modules"])[1]["class"] = chance.choice(names)


def _module_argument(graph: Any, chance: Random) -> None:
    arguments = chance.choice([one for _, one in graph["modules"] if one.get("arguments")])["arguments"]
    arguments[chance.choice((*arguments, "device", "dtype", "x"))] = chance.choice(_VALUES)


def _huge(graph: Any, chance: Random) -> None:
    """Arguments that ask for more memory than there is."""
    arguments = chance.choice([one for _, one in graph["modules"] if one.get("arguments")])["arguments"]
    for name in arguments:
        if isinstance(arguments[name], int):
            arguments[name] = 10**12


def _module_path(graph: Any, chance: Random) -> None:
    chance.choice(graph["modules"])[0] = chance.choice((*_ENDS, "a..b", "model.0", graph["modules"][1][0]))


def _module_within(graph: Any, chance: Random) -> None:
    """A module that stands within another, or within itself."""
    entry = chance.choice(graph["modules"][1:])
    entry[1] = {"same": chance.choice(graph["modules"])[0]}


def _note(graph: Any, chance: Random) -> None:
    note = chance.choice(graph["notes"])
    note[chance.choice((*note, "x"))] = chance.choice(
        (*_VALUES, {"bits": 99}, {"observer": f"torch.ao.quantization.{CODE}"})
    )


def _shared(graph: Any, chance: Random) -> None:
    names = ["model.0.conv.weight", "model.0.conv.bn.weight", "model.1.conv.weight", "x", CODE]
    graph["same"] = {chance.choice(names): chance.choice(names)}


def _anything(graph: Any, chance: Random) -> None:
    graph[chance.choice(list(graph))] = chance.choice(_VALUES)


MUTATIONS: dict[str, Callable[[Any, Random], None]] = {
    "node's target": _target,
    "node's operation": _operation,
    "node's name": _name,
    "keyword": _keyword,
    "argument": _argument,
    "reference": _reference,
    "order of nodes": _order,
    "part left out": _dropped,
    "module's class": _module_class,
    "module's argument": _module_argument,
    "huge shape": _huge,
    "module's path": _module_path,
    "module within another": _module_within,
    "note": _note,
    "shared tensor": _shared,
    "whole part": _anything,
}


def graphs(given: Given, folder: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Load ``count`` files with mutated graphs; yield the kind of each and what came of it."""
    chance = Random(seed)
    for index in range(count):
        kind, changed = mutated(given.graphs, chance)
        path = folder / f"graph{index}.fxqat"
        given.write(path, changed)
        yield kind, outcome(path)
        path.unlink()


def files(content: bytes, folder: Path, count: int, seed: int) -> Iterator[str]:
    """Load ``count`` damaged files; yield what came of each."""
    chance = Random(seed)
    for index in range(count):
        path = folder / f"bytes{index}.fxqat"
        path.write_bytes(damaged(content, chance))
        yield outcome(path)
        path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how many of each kind were loaded and refused; exit code 1 where something forbidden ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fxqat-mutated-") as name:
        folder = Path(name)
        path = example(folder / "good.fxqat")
        seen = watched()
        rows = Counter(graphs(Given.read(path), folder, options.graphs, options.seed))
        rows.update(("bytes", found) for found in files(path.read_bytes(), folder, options.bytes, options.seed))
    print("| changed | refused | loaded |\n| --- | --- | --- |")
    for kind in sorted({kind for kind, _ in rows}):
        print(f"| {kind} | {rows[kind, 'refused']} | {rows[kind, 'loaded']} |")
    print(f"forbidden: {', '.join(sorted(set(seen))) or 'nothing'}")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
