"""Loading Ultralytics models without running what a stranger put into the file.

A .pt file is a pickle, and a pickle may call any function it names. Here a checkpoint may name only classes of layers
(subclasses of ``nn.Module`` in torch.nn and ultralytics.nn), torch's own tensor builders and a short list of plain
containers; everything else is refused before anything is unpickled. Building from YAML is guarded in the same way,
since Ultralytics evaluates its ``activation`` entry.
"""

from __future__ import annotations

import ast
import importlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from fxqat.errors import Problem
from fxqat.files import sha256
from fxqat.graph.site import nearest
from fxqat.yolo import offline  # noqa: F401  (quiet before Ultralytics is imported)
from fxqat.yolo.detector import Source

from ultralytics.nn import tasks  # isort: skip
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset  # isort: skip

# Containers and settings that official checkpoints hold beside their layers; none of them runs code when it is built.
_PLAIN = (
    "collections.OrderedDict",
    "builtins.set",
    "builtins.dict",
    "builtins.slice",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "ultralytics.utils.IterableSimpleNamespace",
    "ultralytics.nn.tasks.DetectionModel",
    "torch.Size",
)
_LAYER_MODULES = ("torch.nn.modules.", "ultralytics.nn.modules.", "ultralytics.nn.modules")


def load_pt(path: Path, *, trust: bool = False) -> tuple[nn.Module, Source]:
    """The float model in a checkpoint, in eval mode, and where it came from. The EMA weights are taken where there are
    some.

    Args:
        path: a .pt file as Ultralytics writes it.
        trust: unpickle classes outside the allow-list too; they can run any code.

    Raises:
        Problem: missing, empty, damaged, not a detector, or naming a class outside the allow-list.
    """
    model = _model_in(_unpickled(path, trust), path)
    if not isinstance(model, tasks.DetectionModel) or type(model.model[-1]).__name__ != "Detect":
        layers = getattr(model, "model", None)
        head = type(layers[-1] if isinstance(layers, nn.Sequential) else model).__name__
        raise Problem(
            path, f"holds no detector but {head}", expected="a YOLOv8 detection model", remedy="use a yolov8*.pt"
        )
    for layer in model.modules():
        if isinstance(layer, nn.Upsample) and not hasattr(layer, "recompute_scale_factor"):
            layer.recompute_scale_factor = None  # checkpoints of torch 1.10 and before lack it
    return model.float().eval(), _source(model, path.name, sha256(path))


def fetched(path: Path) -> Path:
    """The checkpoint, downloaded by Ultralytics where it is one of theirs and missing here.

    Raises:
        Problem: it could not be downloaded.
    """
    if path.exists() or path.name not in GITHUB_ASSETS_NAMES or path.parent != Path():
        return path
    try:
        return Path(attempt_download_asset(path))
    except Exception as error:
        raise Problem(
            path,
            f"no such file, and Ultralytics could not download it ({error})",
            remedy="give the path of a checkpoint",
        ) from error


def build(architecture: str | Path | dict[str, Any], *, classes: int | None = None) -> tuple[nn.Module, Source]:
    """A model with random weights from an architecture file, its Ultralytics name (``yolov8n.yaml``), or its content.

    Raises:
        Problem: an unknown name, or an architecture whose entries are not layers.
    """
    content = architecture if isinstance(architecture, dict) else _architecture(str(architecture))
    where = "architecture" if isinstance(architecture, dict) else str(architecture)
    check_architecture(content, where)
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        model = tasks.DetectionModel(dict(content), nc=classes, verbose=False)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError, RuntimeError) as error:
        raise Problem(
            where, f"cannot be built ({error!r})", expected="an Ultralytics detection architecture"
        ) from error
    finally:
        torch.random.set_rng_state(torch_state)
    return model.float().eval(), _source(model, where, "")


def check_architecture(content: dict[str, Any], where: str) -> None:
    """Refuse an architecture that names anything but layers: Ultralytics looks its names up among all of a module's
    globals.

    Raises:
        Problem: naming the entry.
    """
    if not isinstance(content.get("backbone"), list) or not isinstance(content.get("head"), list):
        raise Problem(where, "has no lists backbone and head", expected="an Ultralytics architecture")
    for entry in [*content["backbone"], *content["head"]]:
        if not (isinstance(entry, list) and len(entry) == 4 and _is_layer(entry[2])):
            raise Problem(where, f"the entry {entry!r} is not a layer", expected="[from, repeats, layer, arguments]")
    activation = content.get("activation")
    if activation is not None and not _is_activation(str(activation)):
        raise Problem(where, f"activation {activation!r} is not a torch.nn layer", expected="such as nn.ReLU()")


def _unpickled(path: Path, trust: bool) -> Any:
    if not path.is_file():
        raise Problem(path, "no such file", expected="a .pt checkpoint", remedy="check the path")
    if path.stat().st_size == 0:
        raise Problem(path, "is empty", expected="a .pt checkpoint", remedy="download it again")
    if not zipfile.is_zipfile(path):
        raise Problem(
            path, "is not a checkpoint of torch.save, or is damaged", expected="a .pt file", remedy="download it again"
        )
    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_allowed(name, path), name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, AttributeError, ModuleNotFoundError) as error:
        raise Problem(path, f"cannot be read ({_first_line(error)})", expected="a .pt checkpoint") from error
    except pickle.UnpicklingError as error:
        raise Problem(
            path, f"is refused ({_first_line(error)})", remedy="pass --trust if you trust its author"
        ) from error


def _allowed(name: str, path: Path) -> Callable[..., Any]:
    """The object behind a global that the pickle names, if it is on the allow-list. Nothing outside two packages is
    imported."""
    module, _, attribute = name.rpartition(".")
    if name in _PLAIN:
        return getattr(importlib.import_module(module), attribute)
    if module.startswith(_LAYER_MODULES):
        found = getattr(importlib.import_module(module), attribute, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    raise Problem(
        path,
        f"is refused: it names {name}, which is no layer of torch or Ultralytics and could run any code",
        remedy="pass --trust if you trust its author",
    )


def _model_in(content: Any, path: Path) -> nn.Module:
    if isinstance(content, dict):
        content = content.get("ema") or content.get("model") or content
    if isinstance(content, nn.Module):
        return content
    raise Problem(path, f"holds no model but {type(content).__name__}", expected="a checkpoint written by Ultralytics")


def _source(model: Any, name: str, digest: str) -> Source:
    architecture = {key: value for key, value in model.yaml.items() if key not in {"yaml_file"}}
    architecture["nc"] = model.model[-1].nc
    return Source(
        name=name,
        sha256=digest,
        architecture=architecture,
        names={int(key): str(value) for key, value in model.names.items()},
        stride=tuple(float(s) for s in model.model[-1].stride),
    )


def _architecture(name: str) -> dict[str, Any]:
    if not name.endswith((".yaml", ".yml")):
        raise Problem(name, "is neither a checkpoint nor an architecture", expected="a .pt, .fxqat or .yaml file")
    try:
        content = tasks.yaml_model_load(name)
    except FileNotFoundError as error:
        known = [file.name for file in Path(tasks.__file__).parents[1].glob("cfg/models/v8/*.yaml")]
        raise Problem(
            name, "no such architecture", remedy=nearest(name, [*known, *_scales()]) or "check the name"
        ) from error
    except yaml.YAMLError as error:
        raise Problem(name, f"is not YAML ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise Problem(name, "is not a mapping", expected="an Ultralytics architecture")
    return content


def _scales() -> list[str]:
    return [f"yolov8{scale}.yaml" for scale in "nsmlx"]


def _is_layer(name: object) -> bool:
    if not isinstance(name, str):
        return False
    found = getattr(nn, name[3:], None) if name.startswith("nn.") else vars(tasks).get(name)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _is_activation(text: str) -> bool:
    try:
        call = ast.parse(text.removeprefix("torch."), mode="eval").body
        values = [*call.args, *(keyword.value for keyword in call.keywords)] if isinstance(call, ast.Call) else [call]
        [ast.literal_eval(value) for value in values]
    except (SyntaxError, ValueError):
        return False
    named = isinstance(call, ast.Call) and ast.unparse(call.func)
    return isinstance(named, str) and named.startswith("nn.") and _is_layer(named)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
