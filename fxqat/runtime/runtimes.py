"""Runtimes that exported files are verified in, found by name: one file for each."""

from __future__ import annotations

from collections.abc import Sequence

from fxqat.errors import Problem
from fxqat.graph.site import nearest
from fxqat.runtime.litert import LITERT, REFERENCE_KERNELS
from fxqat.runtime.onnx_reference import ONNX_REFERENCE
from fxqat.runtime.onnx_runtime import ONNX_RUNTIME, UNOPTIMIZED
from fxqat.runtime.openvino import OPENVINO
from fxqat.runtime.runtime import Runtime

# The first of a suffix opens such files where no other is asked for.
RUNTIMES: dict[str, Runtime] = {
    one.name: one for one in (ONNX_RUNTIME, UNOPTIMIZED, ONNX_REFERENCE, OPENVINO, LITERT, REFERENCE_KERNELS)
}


def register_runtime(runtime: Runtime) -> None:
    """Let ``Target.runtime`` and ``--runtimes`` name ``runtime``.

    Raises:
        ValueError: another runtime has the name.
    """
    if RUNTIMES.setdefault(runtime.name, runtime) is not runtime:
        raise ValueError(f"runtime: {runtime.name!r} is taken, expected one that is not one of {', '.join(RUNTIMES)}")


def default_runtime(suffix: str) -> Runtime:
    """The runtime of files whose names end in ``suffix``, where no other is asked for."""
    return next(one for one in RUNTIMES.values() if one.suffix == suffix)


def chosen(names: str | Sequence[str] | None, suffix: str = ".onnx") -> tuple[list[Runtime], list[Runtime]]:
    """The runtimes of a comma-separated list: those installed, and those missing.

    Args:
        names: ``all`` are those that open files of ``suffix``, None the first of these.
        suffix: of the file.

    Raises:
        Problem: a name that is none.
    """
    able = [one.name for one in RUNTIMES.values() if one.suffix == suffix]
    words = names.split(",") if isinstance(names, str) else list(names or able[:1])
    words = able if words == ["all"] else words
    for word in words:
        if word not in RUNTIMES:
            legal = ", ".join([*RUNTIMES, "all"])
            raise Problem(
                "--runtimes", f"unknown runtime {word!r}", expected=f"of: {legal}", remedy=nearest(word, RUNTIMES)
            )
    found = [RUNTIMES[word] for word in dict.fromkeys(words)]
    return [one for one in found if one.installed], [one for one in found if not one.installed]
