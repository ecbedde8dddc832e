"""Loading Ultralytics models without running what a stranger put into the file.

Checkpoints are unpickled by ``fxqat.models.unpickle``. Architectures are guarded in the same way: Ultralytics evaluates
their ``activation`` entry and looks up layers by name among everything it has imported.
"""

from __future__ import annotations

import ast
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from fxqat.errors import Problem
from fxqat.files import sha256
from fxqat.graph.site import nearest
from fxqat.models import offline  # noqa: F401  (quiet before Ultralytics is imported)
from fxqat.models.checkpoint_values import Leftover
from fxqat.models.detector import Source
from fxqat.models.families import family_named, family_of
from fxqat.models.family import imported
from fxqat.models.image_size import MAX_SIDE
from fxqat.models.unpickle import unpickled

from ultralytics.nn import tasks  # isort: skip
from ultralytics.nn.modules import Conv  # isort: skip
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset  # isort: skip


# Where the model is in what wraps it: DataParallel, a distillation, a whole YOLO object.
_WRAPPED = ("module", "student_model", "model")
_DEPTH = 3  # of wrappers around a model


def load_pt(path: Path, *, trust: bool = False) -> tuple[nn.Module, Source]:
    """The float model in a checkpoint, in eval mode, and where it came from. The EMA weights are taken where there are
    some.

    Args:
        path: a .pt file as Ultralytics writes it, finished or not, of any version.
        trust: grant the file what the allow-list does not offer; it can run any code.

    Raises:
        Problem: missing, empty, damaged, not a detector, or asking for more than it may.
    """
    content = unpickled(path, trust=trust)
    model = _model_in(content, path)
    try:
        layers = model._modules.get("model")
        family_of(layers[-1] if isinstance(layers, nn.Sequential) and len(layers) else model, path.name)
        _expect_colour(model, path)
        _update(model)
        return model, replace(_source(model, path.name, sha256(path)), imgsz=_trained_size(content))
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # state that was damaged
        raise Problem(path, f"holds a damaged model ({error})", remedy="download it again") from error


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

    Args:
        architecture: as above.
        classes: number of classes, instead of the architecture's.

    Raises:
        Problem: an unknown name, an architecture whose entries are not layers, or one for other images than RGB.
    """
    content = architecture if isinstance(architecture, dict) else _architecture(str(architecture))
    where = "architecture" if isinstance(architecture, dict) else str(architecture)
    check_architecture(content, where)
    family = family_named(content["head"][-1][2], where)
    torch_state, activation = torch.random.get_rng_state(), Conv.default_act
    torch.manual_seed(0)
    try:
        model = imported(family.model)(dict(content), nc=classes, verbose=False)
    except Exception as error:  # whatever Ultralytics makes of arguments that do not fit
        raise Problem(where, f"cannot be built ({error!r})", expected="an Ultralytics architecture") from error
    finally:
        torch.random.set_rng_state(torch_state)
        Conv.default_act = activation  # Ultralytics sets it for the process, and leaves it so where building fails
    _expect_colour(model, where)
    return model.float().eval(), _source(model, where, "")


def without_nms(model: nn.Module, source: Source) -> Source:
    """Let ``model`` predict by the branches that need no non-maximum suppression; the source that says so.

    Raises:
        Problem: its head has none.
    """
    if not source.head_spec.end2end:
        raise Problem(
            source.name,
            "has no branches that predict without NMS",
            expected="YOLOv10, YOLO26 or another end-to-end head",
        )
    model.model[-1].end2end = True  # type: ignore[index, union-attr]
    return replace(source, head={**source.head, "nms_free": True})


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
    """The model of a checkpoint, out of whatever it was wrapped in."""
    if isinstance(content, dict):
        _check_content(content, path)
        content = next((content[key] for key in ("ema", "model") if content.get(key) is not None), content)
    for _ in range(_DEPTH):
        content = _unwrapped(content)
    if isinstance(content, nn.Module):
        return content
    raise Problem(path, f"holds no model but {type(content).__name__}", expected="a checkpoint written by Ultralytics")


def _trained_size(content: Any) -> int:
    """Pixels of a side of the images that a checkpoint was trained on; 0 where it does not tell."""
    told = content.get("train_args") if isinstance(content, dict) else None
    size = told.get("imgsz") if isinstance(told, dict) else None
    return size if type(size) is int and 0 < size <= MAX_SIDE else 0


def _unwrapped(content: Any) -> Any:
    """What a DataParallel, a distillation or a YOLO object holds; or ``content`` itself where it is none of them."""
    if isinstance(content, nn.parallel.DataParallel):
        return content.module
    if not (isinstance(content, Leftover) and isinstance(content.state, dict)):
        return content
    inner = {**content.state, **content.state.get("_modules", {})}
    return next((inner[key] for key in _WRAPPED if inner.get(key) is not None), content)


def _check_content(content: dict[Any, Any], path: Path) -> None:
    """Refuse checkpoints that lack the model itself, or whose numbers mean something with their quantizers alone."""
    tensors = next((content[key] for key in ("ema", "model") if content.get(key) is not None), content)
    if isinstance(tensors, dict) and tensors and all(isinstance(one, Tensor) for one in tensors.values()):
        raise Problem(
            path,
            "holds tensors but no model (a state_dict)",
            expected="a checkpoint written by Ultralytics",
            remedy="load them into the model and write it with YOLO.save",
        )
    if content.get("modelopt"):
        raise Problem(
            path,
            "was trained with the quantizers of NVIDIA ModelOpt",
            expected="a float model",
            remedy="use the checkpoint that it was trained from",
        )


def _expect_colour(model: nn.Module, path: str | Path) -> None:
    """Refuse models of other images than RGB."""
    channels = next((layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)), 0)
    if channels != 3:
        raise Problem(
            path,
            f"takes images of {channels} channel{'s' * (channels != 1)}",
            expected="3 channels (RGB)",
            remedy="use a model that was trained on colour images",
        )


def _update(model: Any) -> None:
    """Make a model of any version one of today's, in float32 and eval mode."""
    for layer in model.modules():
        if isinstance(layer, nn.Upsample) and not hasattr(layer, "recompute_scale_factor"):
            layer.recompute_scale_factor = None  # checkpoints of torch 1.10 and before lack it
    if not hasattr(model, "stride"):
        model.stride = getattr(model.model[-1], "stride", torch.tensor([32.0]))  # as Ultralytics; 8.0.0 had none
    model.float().eval()


def _source(model: Any, name: str, digest: str) -> Source:
    head = model.model[-1]
    family = family_of(head, name)
    spec = family.spec(head)
    names = _names(getattr(model, "names", None))
    return Source(
        name=name,
        sha256=digest,
        architecture=_architecture_of(model) | {"nc": spec.classes},
        names={index: names.get(index, str(index)) for index in range(spec.classes)},
        stride=tuple(float(s) for s in model.stride),
        unnamed=sum(index not in names for index in range(spec.classes)),
        task=family.task,
        head=asdict(spec),
    )


def _architecture_of(model: nn.Module) -> dict[str, Any]:
    """What the model was built from, where it tells; entries that no YAML file holds are left out."""
    content = getattr(model, "yaml", None)
    entries = content.items() if isinstance(content, dict) else ()
    return {key: value for key, value in entries if key != "yaml_file" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _names(names: object) -> dict[int, str]:
    """The class names of a model, which are a mapping since Ultralytics 8 and a list before it."""
    given = dict(enumerate(names)) if isinstance(names, (list, tuple)) else names if isinstance(names, dict) else {}
    return {int(key): str(value) for key, value in given.items()}


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
