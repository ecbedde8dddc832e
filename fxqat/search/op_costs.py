"""Time of each site in ONNX Runtime on this machine, from its profiler."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import fx, nn

from fxqat.errors import Problem
from fxqat.files import temporary_folder
from fxqat.graph.site import module_of, site_of

CODES = ".codes"
BORDERS = ("QuantizeLinear", "DequantizeLinear")
_RUNS, _WARMUP = 20, 5
_SUFFIX = "_kernel_time"
_LEAST = 0.2  # of a node's time, whatever the profiler takes
_LARGE = 10_000  # elements, where an operation's time goes with its size


@dataclass(frozen=True, kw_only=True)
class Costs:
    """One file.

    Attributes:
        sites: milliseconds by site, a layer with its activation; nodes that belong to none stand under ``""``.
        elements: of each site's largest output.
        border: milliseconds an element of a quantize or dequantize that the runtime fuses with nothing; 0 without any.
        total: milliseconds of all nodes.
    """

    sites: Mapping[str, float]
    elements: Mapping[str, int]
    border: float
    total: float


def convolutions(gm: fx.GraphModule) -> list[str]:
    """Sites of a lowered graph's convolutions, in the order of the computation, which an export keeps."""
    return [site_of(node) for node in gm.graph.nodes if _is_convolution(node)]


def profile(path: Path, layers: Sequence[str], *, threads: int = 2) -> Costs:
    """Run a file under ONNX Runtime's profiler, optimizations on, and give each node's median time to a site.

    The profiler takes time itself, about as much for each node; what the nodes' sum has beyond a run without it is
    taken off evenly, or graphs of many small nodes would seem slower than they are.

    Args:
        path: exported by fxqat, with fixed sizes.
        layers: see ``convolutions``.
        threads: of the session.

    Raises:
        Problem: the file's convolutions are not those of ``layers``.
    """
    proto = onnx.load(path)
    _name(proto, layers, path)
    with temporary_folder("fxqat-profile-") as folder:
        events, whole = _events(proto, folder, threads)
    return _costs(events, whole)


def _is_convolution(node: fx.Node) -> bool:
    return node.target is torch.conv2d or (node.op == "call_module" and isinstance(module_of(node), nn.Conv2d))


def _name(proto: onnx.ModelProto, layers: Sequence[str], path: Path) -> None:
    """Name every node ``SITE/number``; the names of what ONNX Runtime fuses and reorders begin with these."""
    nodes = proto.graph.node
    convs = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if len(convs) != len(layers):
        raise Problem(path, f"has {len(convs)} convolutions", expected=f"{len(layers)}, as the model has")
    known = dict(zip(convs, layers, strict=True))
    reader = {name: node for node in nodes if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    sites: dict[str, str] = {}
    for index, node in enumerate(nodes):
        quantize = reader.get(node.output[0], node)
        named = quantize.output[0].removesuffix(CODES) if quantize.output[0].endswith(CODES) else ""
        above = next((sites[name] for name in node.input if name in sites), "")
        site = known.get(index) or _layer(named, layers) or above
        sites.update(dict.fromkeys(node.output, site))
        node.name = f"{site}/{index}"
        if index in known:
            _rename(proto, node, f"{site}/{index}")


def _layer(site: str, layers: Sequence[str]) -> str:
    """The layer that a tensor such as ``model.0.conv.silu`` belongs to, or the tensor's own site."""
    owner, _, tail = site.rpartition(".")
    return owner if tail in {"sigmoid", "silu"} and owner in layers else site


def _rename(proto: onnx.ModelProto, node: onnx.NodeProto, name: str) -> None:
    """Name a convolution's output too: in ONNX Runtime's blocked layout nodes are called after it."""
    old = node.output[0]
    if old.endswith(CODES) or any(old == output.name for output in proto.graph.output):
        return
    for other in proto.graph.node:
        other.input[:] = [name if one == old else one for one in other.input]
    node.output[0] = name


def _events(proto: onnx.ModelProto, folder: Path, threads: int) -> tuple[list[dict[str, Any]], float]:
    """The profiler's events, and the median milliseconds of a run without it."""
    whole = _session(proto, threads, None)
    times = _run(whole)
    del whole  # its threads would spin beside those of the next
    session = _session(proto, threads, folder / "profile")
    _run(session)
    found: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in found if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)]
    return nodes, 1e3 * float(np.median(times[_WARMUP:]))


def _session(proto: onnx.ModelProto, threads: int, profile: Path | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession) -> list[float]:
    """Seconds of each run on random pixels."""
    source, times = session.get_inputs()[0], list[float]()
    pixels = np.random.default_rng(0).random(source.shape, dtype=np.float32)
    for _ in range(_WARMUP + _RUNS):
        begin = time.perf_counter()
        session.run(None, {source.name: pixels})
        times.append(time.perf_counter() - begin)
    return times


def _costs(events: Sequence[dict[str, Any]], whole: float) -> Costs:
    sites, elements = defaultdict[str, float](float), dict[str, int]()
    nodes = list(_medians(events))
    extra = max(0.0, sum(milliseconds for _, _, milliseconds, _ in nodes) - whole) / max(len(nodes), 1)
    borders: list[float] = []
    for site, op, measured, size in nodes:
        milliseconds = max(measured - extra, measured * _LEAST)
        sites[site] += milliseconds
        elements[site] = max(elements.get(site, 0), size)
        if op in BORDERS and size > _LARGE:
            borders.append(milliseconds / size)
    border = float(np.median(borders)) if borders else 0.0
    return Costs(sites=dict(sites), elements=elements, border=border, total=sum(sites.values()))


def _medians(events: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, float, int]]:
    """Of each node: site, operation, median milliseconds after the warm-up, elements of its first output."""
    by_node = defaultdict[str, list[dict[str, Any]]](list)
    for event in events:
        by_node[event["name"]].append(event)
    for name, runs in by_node.items():
        per_run = max(1, len(runs) // (_RUNS + _WARMUP))
        times = [event["dur"] for event in runs[per_run * _WARMUP :]]
        shapes = [shape for one in runs[0]["args"].get("output_type_shape", []) for shape in one.values()]
        size = int(np.prod(shapes[0])) if shapes else 0
        site = name.partition("/")[0]
        yield site, runs[0]["args"]["op_name"], per_run * float(np.median(times)) / 1e3, size
