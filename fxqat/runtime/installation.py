"""What fxqat finds on this machine: processor, libraries, runtimes, optional extras, compiler, exact targets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

import torch

from fxqat.quant.compiled_kernels import has_compiler
from fxqat.runtime.exactness import target_here
from fxqat.runtime.processor import processor
from fxqat.runtime.runtimes import RUNTIMES
from fxqat.targets import TARGETS
from fxqat.version import installed, library_versions

_DEVELOPMENT = "dev"  # the extra that only who works on fxqat needs


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        topic: processor, library, runtime, extra, compiler or target.
        name: of it within the topic.
        works: whether it can be used here; None where this machine cannot tell.
        detail: its version, what it means, or what to do about it.
    """

    topic: str
    name: str
    works: bool | None
    detail: str


def findings() -> tuple[Finding, ...]:
    """Everything that decides what works on this machine, topic by topic."""
    return (*_processors(), *_libraries(), *_runtimes(), *_extras(), _compiler(), *_targets())


def _processors() -> Iterator[Finding]:
    here = processor()
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in torch"
    sums = "adds products of 8 bits in 32" if here.dot_products else "no instruction that adds products of 8 bits in 32"
    yield Finding(topic="processor", name="CPU", works=True, detail=f"{here}; {threads}; {sums}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    detail = ", ".join(names) or "none that torch can use: training runs on the CPU"
    yield Finding(topic="processor", name="GPU", works=bool(names), detail=detail)


def _libraries() -> Iterator[Finding]:
    for name, version in library_versions().items():
        yield Finding(topic="library", name=name, works=True, detail=version)


def _runtimes() -> Iterator[Finding]:
    """Each runtime's package once: how its sessions are opened is no matter here."""
    seen: set[str] = set()
    for one in RUNTIMES.values():
        if one.package in seen:
            continue
        seen.add(one.package)
        missing = f"not installed: pip install {one.package.replace('_', '-')}"
        detail = _version(one.package) if one.installed else missing
        yield Finding(topic="runtime", name=one.title, works=one.installed, detail=detail)


def _version(module: str) -> str:
    """Of the distribution that has the module, by its first name on PyPI."""
    (name, *_) = metadata.packages_distributions().get(module, [module])
    return f"{name} {installed(name)}"


def _extras() -> Iterator[Finding]:
    for extra, packages in optional_packages().items():
        missing = [name for name in packages if not installed(name)]
        remedy = f"{', '.join(missing)} not installed: pip install 'fxqat[{extra}]'"
        yield Finding(
            topic="extra", name=extra, works=not missing, detail=remedy if missing else f"has {', '.join(packages)}"
        )


def optional_packages() -> Mapping[str, tuple[str, ...]]:
    """The packages of each extra of fxqat, as its own metadata list them; none where fxqat is not installed."""
    found: dict[str, tuple[str, ...]] = {}
    for line in metadata.requires("fxqat") or [] if installed("fxqat") else []:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if name and extra and extra[1] != _DEVELOPMENT:
            found[extra[1]] = (*found.get(extra[1], ()), name[0])
    return found


def _compiler() -> Finding:
    there = has_compiler()
    detail = "C++ at hand: the steps of each quantizer are compiled" if there else "none: install g++ to train faster"
    return Finding(topic="compiler", name="C++", works=there, detail=detail)


def _targets() -> Iterator[Finding]:
    for target in TARGETS.values():
        exact, why = target_here(target)
        yield Finding(topic="target", name=target.name, works=exact, detail=why)
