"""Loading Ultralytics models without running what a stranger put into the file.

Checkpoints are unpickled by ``fxqat.models.unpickle``. Architectures are guarded in the same way: Ultralytics evaluates
their ``activation`` entry and looks up layers by name among everything it has imported.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from fxqat.errors import Problem
from fxqat.files import sha256
from fxqat.graph.site import nearest
from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)
from fxqat.models.channels import Channels, channels_of, set_channels
from fxqat.models.detector import Source
from fxqat.models.unpickle import unpickled

from ultralytics.nn import tasks  # isort: skip
from ultralytics.nn.modules import Conv  # isort: skip
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset  # isort: skip


def load_pt(path: Path, *, trust: bool = False) -> tuple[nn.Module, Source]:
    """The float model in a checkpoint, in eval mode, and where it came from. The EMA weights are taken where there are
    some.

    Args:
        path: a .pt file as Ultralytics writes it.
        trust: unpickle classes outside the allow-list too; they can run any code.

    Raises:
        Problem: missing, empty, damaged, not a detector, or naming a class outside the allow-list.
    """
    model = _model_in(unpickled(path, trust=trust), path)
    layers = getattr(model, "model", None)
    head = type(layers[-1] if isinstance(layers, nn.Sequential) and len(layers) else model).__name__
    if not isinstance(model, tasks.DetectionModel) or head != "Detect":
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


def build(
    architecture: str | Path | dict[str, Any], *, classes: int | None = None, channels: Channels | None = None
) -> tuple[nn.Module, Source]:
    """A model with random weights from an architecture file, its Ultralytics name (``yolov8n.yaml``), or its content.

    Args:
        architecture: as above.
        classes: number of classes, instead of the architecture's.
        channels: (in, out) of convolutions by path, where they are not what Ultralytics makes of the architecture.

    Raises:
        Problem: an unknown name, or an architecture whose entries are not layers.
    """
    content = architecture if isinstance(architecture, dict) else _architecture(str(architecture))
    where = "architecture" if isinstance(architecture, dict) else str(architecture)
    check_architecture(content, where)
    torch_state, activation = torch.random.get_rng_state(), Conv.default_act
    torch.manual_seed(0)
    try:
        model = tasks.DetectionModel(dict(content), nc=classes, verbose=False)
        set_channels(model, channels or {}, where)
    except Problem:
        raise
    except Exception as error:  # whatever Ultralytics makes of arguments that do not fit
        raise Problem(
            where, f"cannot be built ({error!r})", expected="an Ultralytics detection architecture"
        ) from error
    finally:
        torch.random.set_rng_state(torch_state)
        Conv.default_act = activation  # Ultralytics sets it for the process, and leaves it so where building fails
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
        channels=channels_of(model),
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
    except (yaml.YAMLError, ValueError) as error:
        raise Problem(name, "is no YAML mapping", expected="an Ultralytics architecture") from error
    if not isinstance(content, dict):
        raise Problem(name, "is not a mapping", expected="an Ultralytics architecture")
    return content


def _scales() -> list[str]:
    return [f"yolov8{scale}.yaml" for scale in "nsmlx"]


def _is_layer(name: object) -> bool:
    """Whether ``name`` is a layer; whole models are none, since one built inside another has an activation of its
    own."""
    if not isinstance(name, str):
        return False
    found = getattr(nn, name[3:], None) if name.startswith("nn.") else vars(tasks).get(name)
    is_module = isinstance(found, type) and issubclass(found, nn.Module)
    return is_module and found.__module__.startswith(("torch.nn.modules.", "ultralytics.nn.modules."))


def _is_activation(text: str) -> bool:
    try:
        call = ast.parse(text.removeprefix("torch."), mode="eval").body
        values = [*call.args, *(keyword.value for keyword in call.keywords)] if isinstance(call, ast.Call) else [call]
        [ast.literal_eval(value) for value in values]
    except (SyntaxError, ValueError):
        return False
    named = isinstance(call, ast.Call) and ast.unparse(call.func)
    return isinstance(named, str) and named.startswith("nn.") and _is_layer(named)
