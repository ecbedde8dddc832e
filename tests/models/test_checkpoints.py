"""Checkpoints of all years and makers: what loads computes what the source model computes, bit for bit; what does not
is refused with a line that says what it is."""

from __future__ import annotations

import copy
import zipfile

import models.checkpoint_files as files
import numpy as np
import pytest
import torch
from commands import said
from refusals import refusal
from torch import nn
from torchvision import transforms

import fxqat
from fxqat.graph.info import info_of
from fxqat.graph.site import operation
from fxqat.models.load import build, load_pt
from fxqat.models.trace import trace
from fxqat.models.unpickle import unpickled


@pytest.fixture(scope="module")
def inputs():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def predictions(model, inputs):
    with torch.no_grad():
        return model(inputs)[0]


def assert_same(path, source, inputs):
    """The graph of the checkpoint at ``path`` gives the bits of ``source`` in float32 and eval mode."""
    model, told = load_pt(path)
    wanted = predictions(copy.deepcopy(source).float().eval(), inputs)
    assert wanted.isfinite().all()
    assert torch.equal(predictions(trace(model), inputs), wanted)
    return told


@pytest.mark.parametrize("form", files.WRITERS)
def test_every_form_of_a_checkpoint_loads(form, tmp_path, inputs):
    model = files.detector()
    source = copy.deepcopy(model)
    told = assert_same(files.WRITERS[form](tmp_path / "best.pt", model), source, inputs)
    assert told.names == {0: "cat", 1: "dog"}
    assert (told.unnamed, told.stride) == (0, (4.0, 8.0))


@pytest.mark.parametrize("form", files.WRITERS)
def test_trust_takes_whatever_loads_without_it(form, tmp_path, inputs):
    path = files.WRITERS[form](tmp_path / "best.pt", files.detector())
    assert torch.equal(*(predictions(load_pt(path, trust=trust)[0], inputs) for trust in (False, True)))


class Strange(nn.Module):
    """A layer of the program that wrote the checkpoint."""


def test_trust_takes_old_names_beside_foreign_classes(tmp_path, inputs):
    """Where the allow-list is not enough, Python's unpickler reads the whole file, old names included."""
    model = files.detector()
    source = copy.deepcopy(model)
    model.extra = Strange()
    path = files.write_ultralytics_8_0(tmp_path / "best.pt", model)
    assert "it names test_checkpoints.Strange" in refusal(load_pt, path)
    assert torch.equal(predictions(load_pt(path, trust=True)[0], inputs), predictions(source, inputs))


@pytest.mark.parametrize("variant", files.VARIANTS)
def test_every_variant_of_a_model_loads(variant, tmp_path, inputs):
    model = files.VARIANTS[variant](files.detector())
    assert_same(files.write(tmp_path / "best.pt", {"model": model}), model, inputs)


def test_sets_and_methods_of_dill(tmp_path, inputs):
    model = files.detector()
    fused = copy.deepcopy(model).fuse(verbose=False)
    assert_same(files.write_dill(tmp_path / "best.pt", model), fused, inputs)


def test_numbers_of_numpy_are_read_as_pythons(tmp_path):
    numbers = [np.float64(0.25), np.float32(-1.5), np.int64(-7), np.bool_(True), np.uint8(200), np.str_("cat")]
    path = files.write(tmp_path / "numbers.pt", numbers)
    assert unpickled(path) == [number.item() for number in numbers]
    files.change_pickle(path, (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert unpickled(path) == [number.item() for number in numbers]


def test_checksums_that_were_not_written_are_not_checked(tmp_path, inputs):
    model, path = files.detector(), tmp_path / "best.pt"
    torch.serialization.set_crc32_options(False)
    try:
        files.write(path, {"model": model})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(path, model, inputs)


def test_tensors_share_the_memory_that_they_shared(tmp_path):
    values = torch.arange(12.0)
    for zipped in (True, False):
        path = files.write(
            tmp_path / "views.pt", [values, values[2:8].view(2, 3).T], _use_new_zipfile_serialization=zipped
        )
        whole, part = unpickled(path)
        assert torch.equal(part, values[2:8].view(2, 3).T)
        whole.zero_()
        assert not part.any()


@pytest.mark.parametrize(
    ("names", "wanted", "unnamed"),
    [
        (["cat", "dog"], {0: "cat", 1: "dog"}, 0),
        ({0: "cat"}, {0: "cat", 1: "1"}, 1),
        ({}, {0: "0", 1: "1"}, 2),
        (None, {0: "0", 1: "1"}, 2),
        ({"0": "cat", "1": 7, "2": "more"}, {0: "cat", 1: "7"}, 0),
    ],
)
def test_names_that_are_a_list_or_missing(names, wanted, unnamed, tmp_path):
    _, told = load_pt(files.write(tmp_path / "best.pt", {"model": files.detector(names=names)}))
    assert (dict(told.names), told.unnamed) == (wanted, unnamed)


def test_a_model_without_names_architecture_and_strides(tmp_path, inputs):
    model = files.detector()
    path = files.write(tmp_path / "best.pt", {"model": model})
    for name in ("names", "yaml", "stride"):
        delattr(model, name)
    told = assert_same(files.write(path, {"model": model}), model, inputs)
    assert (told.architecture, told.unnamed, told.stride) == ({"nc": 2}, 2, (4.0, 8.0))


def test_roles_do_not_need_the_architecture(tmp_path):
    model = files.detector()
    with_yaml = trace(model)
    del model.yaml
    without = trace(load_pt(files.write(tmp_path / "best.pt", {"model": model}))[0])
    roles = [[info_of(node).roles for node in gm.graph.nodes] for gm in (with_yaml, without)]
    assert roles[0] == roles[1]


@pytest.mark.parametrize(
    ("command", "name"),
    [(("prepare", "--policy", "float"), "best.fxqat"), (("swap",), "best.fxqat"), (("export",), "best.onnx")],
)
def test_commands_tell_how_many_classes_have_no_name(command, name, tmp_path, capsys):
    path = files.write(tmp_path / "best.pt", {"model": files.detector(names={0: "cat"})})
    words = said(capsys, *command, str(path), "-o", str(tmp_path / name))
    assert words.startswith(f"1 of 2 classes have no name in {path}: their number is it\n")


def test_a_fused_checkpoint_is_quantized_like_the_one_before_fusing(tmp_path):
    model = files.detector()
    before = fxqat.load(files.write(tmp_path / "before.pt", {"model": model}))
    after = fxqat.load(files.write(tmp_path / "after.pt", {"model": model.fuse(verbose=False)}))
    graphs = [fxqat.prepare(one, "w8a8")[0].gm.graph for one in (before, after)]
    assert "SiLU" not in {operation(node) for node in graphs[1].nodes}
    assert [operation(node) for node in graphs[0].nodes] == [operation(node) for node in graphs[1].nodes]


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.Mish(), nn.ELU()])
def test_activations_outside_the_vocabulary_are_refused_by_prepare(activation, tmp_path):
    model = files.replaced_activations(files.detector(), activation)
    loaded = fxqat.load(files.write(tmp_path / "best.pt", {"model": model}))
    words = refusal(fxqat.prepare, loaded, "w8a8")
    assert f"model.0.act: the operation {type(activation).__name__} is outside the vocabulary of target" in words


@pytest.mark.parametrize(("channels", "word"), [(1, "1 channel"), (4, "4 channels")])
def test_images_that_are_not_of_three_channels(channels, word, tmp_path):
    model = files.detector()
    model.model[0].conv = nn.Conv2d(channels, 16, 3, 4, 1, bias=False)
    path = files.write(tmp_path / "grey.pt", {"model": model})
    line = f"takes images of {word}; expected 3 channels (RGB); use a model that was trained on colour images"
    assert refusal(load_pt, path) == f"{path}: {line}"


def test_grey_architectures_are_refused_as_grey_checkpoints_are():
    line = "takes images of 1 channel; expected 3 channels (RGB); use a model that was trained on colour images"
    # Ultralytics heeds the key for classifiers alone; a detector's channels are its data set's
    content = {"nc": 2, "channels": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[-1, 1, "Classify", ["nc"]]]}
    assert refusal(build, content) == f"architecture: {line}"


def renamed(old, new):
    return lambda path: files.change_pickle(files.write(path, {"model": files.detector()}), (old, new))


def with_part(part):
    return lambda path: files.write(path, {"model": nn.Sequential(nn.Conv2d(3, 8, 3), part)})


def scripted(path):
    with zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"archive/{name}", "")


C2F = b"cultralytics.nn.modules.block\nC2f\n"
REFUSALS = {
    "a state_dict": (
        lambda path: files.write(path, files.detector().state_dict()),
        "holds tensors but no model (a state_dict); expected a checkpoint written by Ultralytics; load them into",
    ),
    "a state_dict as the model": (
        lambda path: files.write(path, {"model": files.detector().state_dict()}),
        "holds tensors but no model (a state_dict)",
    ),
    "quantizers of ModelOpt": (
        lambda path: files.write(path, {"model": files.detector(), "modelopt": {"ranges": {}}}),
        "was trained with the quantizers of NVIDIA ModelOpt; expected a float model; use the checkpoint that",
    ),
    "a layer of yolov5": (
        renamed(C2F, b"cmodels.common\nC3\n"),
        "is refused: it names models.common.C3, a layer of the yolov5 or yolov7 repository, which Ultralytics does "
        "not have; train the model with the ultralytics package",
    ),
    "a layer of another Ultralytics": (
        renamed(C2F, b"cultralytics.nn.modules.later\nC9\n"),
        "does not have; install the version of Ultralytics that it was trained with",
    ),
    "a layer of the program that wrote it": (
        renamed(C2F, b"c__main__\nBlock\n"),
        "is refused: it names Block, a class of the program that wrote it, which could run any code; load it with",
    ),
    "a layer of a package": (
        lambda path: files.write(path, {"model": nn.Sequential(Strange())}),
        "is refused: it names test_checkpoints.Strange",
    ),
    "a layer that is not loaded": (
        with_part(transforms.Resize(8)),
        "is refused: the 1 of a Sequential is torchvision.transforms.transforms.Resize, which is no Module",
    ),
    "TorchScript": (
        scripted,
        "is a TorchScript archive, not a checkpoint; expected a .pt written by training; use the .pt it was exported",
    ),
    "a pointer of Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        "is a pointer of Git LFS, not the file itself; expected a .pt file; run git lfs pull",
    ),
    "a web page": (
        lambda path: path.write_text("<!DOCTYPE html><html></html>"),
        "is a web page, not a checkpoint; expected a .pt file; download the file itself",
    ),
    "no layers": (
        lambda path: files.write(path, {"model": nn.Sequential()}),
        "its head is Sequential; expected one of: Detect, ",
    ),
    "no strides": (
        lambda path: files.write(path, {"model": without_stride()}),
        "holds a damaged model (",
    ),
    "a layer without its parts": (
        lambda path: files.write(path, {"model": without_part()}),
        "cannot be traced (",
    ),
}


def without_stride():
    model = files.detector()
    del model.model[-1].stride
    return model


def without_part():
    model = files.detector()
    del model.model[2].cv2
    return model


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_cannot_be_loaded_is_refused_with_what_it_is(kind, tmp_path):
    make, words = REFUSALS[kind]
    path = tmp_path / "best.pt"
    make(path)
    line = refusal(fxqat.load, path)
    assert line.startswith(str(path)) or line.startswith(path.name)
    assert words in line
    assert ("any code" in line) == (kind in {"a layer of a package", "a layer of the program that wrote it"})


REAL = [
    *("yolov8n", "yolov8s", "yolov8n_violation", "yolo11n_ppe", "yolo26n_crack"),
    *("yolov8n-seg", "yolo11n-seg", "yolo26n-seg_tactile", "yolo11s-cls_flowers"),
]


def tensors(value):
    """The tensors in what a model returns, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [tensor for one in inside for tensor in tensors(one)]


@pytest.mark.parametrize("name", REAL)
def test_real_models_compute_the_same_bits(name, shared_data):
    path = shared_data / "weights" / f"{name}.pt"
    source = torch.load(path, map_location="cpu", weights_only=False)["model"].float().eval()
    model, told = load_pt(path)
    inputs = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(3))
    got, wanted = tensors(predictions(trace(model), inputs)), source(inputs)
    assert got
    assert all(any(torch.equal(one, other) for other in tensors(wanted)) for one in got)
    assert told.names == source.names
    theirs = source.state_dict()
    assert all(torch.equal(tensor, theirs.pop(name)) for name, tensor in model.state_dict().items())
    assert not theirs
