"""The words of a file, class by class, and detectors that no architecture tells: all come back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from refusals import refusal
from torch import fx, nn

import fxqat
from fxqat.checkpoint.vocabulary import present, register_function
from fxqat.graph.deserialize import build
from fxqat.graph.serialize import write
from fxqat.graph.site import operation
from fxqat.graph.text import text
from fxqat.models.detector import Detector, Recipe
from fxqat.models.families.blocks.attention import Scaled, SpaceLike
from fxqat.models.families.blocks.elan import EnlargedLike
from fxqat.models.families.decode import AnchorGrid
from fxqat.models.families.pose import PointFlow
from fxqat.models.families.towers import Selection, StopGradient
from fxqat.models.load import build as architecture
from fxqat.models.trace import trace
from fxqat.passes.swap_activation import SwapActivation
from fxqat.quant.fake_quantize import make_fake_quantize
from fxqat.quant.modules import QATBatchNorm2d, QATConv2d, QATLinear, QATReLU
from fxqat.quant.pair_order import Order
from fxqat.quant.spec import QuantSpec

W8 = QuantSpec(axis=0, narrow=True)
ODD = 1e-3 + 2**-43  # no number that anybody's default is


def fused() -> QATConv2d:
    conv = nn.Conv2d(4, 8, (3, 1), (1, 2), (2, 0), (2, 1), groups=2, bias=True)
    made = QATConv2d.fused(conv, nn.BatchNorm2d(8, eps=ODD, momentum=None), nn.LeakyReLU(ODD))
    made.quantize_weight(W8, "conv", pair_orders=(Order.ROWS, Order.PIXELS))
    made.freeze_bn_stats()
    return made


INSTANCES: dict[str, Callable[[], nn.Module]] = {
    "SiLU": lambda: nn.SiLU(inplace=True),
    "ReLU": lambda: nn.ReLU(inplace=True),
    "ReLU6": lambda: nn.ReLU6(inplace=True),
    "QATReLU": QATReLU,
    "LeakyReLU": lambda: nn.LeakyReLU(ODD, inplace=True),
    "Hardswish": lambda: nn.Hardswish(inplace=True),
    "Hardsigmoid": lambda: nn.Hardsigmoid(inplace=True),
    "Hardtanh": lambda: nn.Hardtanh(-ODD, 2.0),
    "ELU": lambda: nn.ELU(ODD),
    "CELU": lambda: nn.CELU(ODD),
    "SELU": lambda: nn.SELU(True),
    "Mish": lambda: nn.Mish(inplace=True),
    "GELU": lambda: nn.GELU("tanh"),
    "Softplus": lambda: nn.Softplus(2, 10),
    "Sigmoid": nn.Sigmoid,
    "LogSigmoid": nn.LogSigmoid,
    "Tanh": nn.Tanh,
    "Softmax": lambda: nn.Softmax(-1),
    "Identity": nn.Identity,
    "Dropout": lambda: nn.Dropout(ODD, inplace=True),
    "Dropout2d": lambda: nn.Dropout2d(ODD),
    "MaxPool2d": lambda: nn.MaxPool2d((3, 2), 1, 1, ceil_mode=True),
    "AvgPool2d": lambda: nn.AvgPool2d(3, 2, 1, True, False, 7),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((2, None)),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
    "Upsample": lambda: nn.Upsample(scale_factor=(2.0, 3.0), mode="bilinear", align_corners=True),
    "ZeroPad2d": lambda: nn.ZeroPad2d((0, 1, 2, 3)),
    "ReflectionPad2d": lambda: nn.ReflectionPad2d((0, 1, 2, 3)),
    "ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
    "PixelShuffle": lambda: nn.PixelShuffle(2),
    "Flatten": lambda: nn.Flatten(2, -1),
    "Unflatten": lambda: nn.Unflatten(1, (2, 2)),
    "Selection": lambda: Selection(17),
    "StopGradient": StopGradient,
    "Scaled": lambda: Scaled(ODD),
    "PointFlow": PointFlow,
    "SpaceLike": SpaceLike,
    "EnlargedLike": EnlargedLike,
    "Sequential": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()),
    "BatchNorm1d": lambda: nn.BatchNorm1d(4, eps=ODD, affine=False),
    "BatchNorm2d": lambda: nn.BatchNorm2d(4, eps=ODD, momentum=0.3, track_running_stats=False),
    "QATBatchNorm2d": lambda: QATBatchNorm2d(4, eps=ODD),
    "GroupNorm": lambda: nn.GroupNorm(2, 4, eps=ODD),
    "LayerNorm": lambda: nn.LayerNorm((4, 4), eps=ODD, elementwise_affine=False),
    "PReLU": lambda: nn.PReLU(4),
    "Conv1d": lambda: nn.Conv1d(4, 4, 3, padding="same", dilation=2),
    "Conv2d": lambda: nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 2), (2, 1), 4, False, "reflect"),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 8, 3, 2, 1, 1, 2, False, 2),
    "Linear": lambda: nn.Linear(4, 8, bias=False),
    "QATConv2d": fused,
    "QATLinear": lambda: QATLinear.fused(nn.Linear(4, 3), nn.ReLU()),
    "FakeQuantize": lambda: make_fake_quantize(QuantSpec(signed=False, symmetric=False, fixed=(-ODD, 1.0)), "a.b"),
    "PerChannelFakeQuantize": lambda: make_fake_quantize(QuantSpec(axis=1, method="mse"), "a", 4),
    "LSQFakeQuantize": lambda: make_fake_quantize(QuantSpec(symmetric=False, scale="lsq+", signed=False), "a"),
    "AnchorGrid": lambda: AnchorGrid([8.0, 16.5], 1),
}


def calling(module: nn.Module) -> fx.GraphModule:
    """A graph that calls ``module``."""
    root, graph = nn.Module(), fx.Graph()
    root.part = module
    graph.output(graph.call_module("part", (graph.placeholder("x"),)))
    return fx.GraphModule(root, graph)


def again(gm: fx.GraphModule) -> fx.GraphModule:
    structure = json.loads(json.dumps(write(gm, present())))
    return build(structure, {name: one.detach().clone() for name, one in gm.state_dict().items()}, present())


def settings(module: nn.Module) -> dict[str, object]:
    """Everything that an instance keeps but tensors and modules."""
    machinery = set(vars(nn.Module())) - {"training"}
    kept = {name: value for name, value in vars(module).items() if name not in machinery and value is not None}
    return {name: value for name, value in kept.items() if not isinstance(value, torch.Tensor)}


def test_every_word_has_an_instance_here():
    assert INSTANCES.keys() == present().modules.keys()


@pytest.mark.parametrize("name", INSTANCES)
def test_every_module_comes_back(name):
    module = INSTANCES[name]()
    for tensor in module.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.ones_like(tensor))
    module.load_state_dict(module.state_dict())  # quantizers mirror their switches when they are loaded
    gm = calling(module).eval()
    back = again(gm).eval()
    for (path, was), (found_path, found) in zip(gm.named_modules(), back.named_modules(), strict=True):
        assert (found_path, type(found).__name__) == (path, type(was).__name__)
        if path:
            assert settings(found) == settings(was), path
    wanted, state = gm.state_dict(), back.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[key], wanted[key]) and state[key].dtype == wanted[key].dtype for key in wanted)
    assert text(back.graph) == text(gm.graph)


def test_a_layer_computes_the_same_with_its_pairs_and_frozen_norm():
    layer = fused().eval()
    back = again(calling(layer)).eval().part
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(back(x), layer(x))
    assert torch.equal(back.pairs, layer.pairs)
    assert not back.train().bn.training, "it was frozen"


def test_a_module_that_an_older_torch_pickled_lacks_attributes():
    pool = nn.Upsample(scale_factor=2)
    del pool.recompute_scale_factor
    assert again(calling(pool)).part.recompute_scale_factor is None


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Bilinear(2, 2, 2), "part is a module of class torch.nn.modules.linear.Bilinear"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "is a module of class"),
    ],
)
def test_a_module_without_a_word_is_refused_before_anything_is_written(module, words, yolov8n, tmp_path):
    own = yolov8n.with_graph(calling(module))
    path = tmp_path / "a.fxqat"
    assert refusal(fxqat.save, own, path).startswith(f"{path}: cannot hold the graph: ")
    assert words in refusal(fxqat.save, own, path)
    assert not list(tmp_path.iterdir())


def test_an_observer_that_its_spec_does_not_ask_for_is_refused(yolov8n, tmp_path):
    fake = make_fake_quantize(QuantSpec(), "a")
    fake.activation_post_process = make_fake_quantize(QuantSpec(observer="histogram"), "a").activation_post_process
    words = "part has an observer HistogramObserver where its spec asks for MinMaxObserver"
    assert words in refusal(fxqat.save, yolov8n.with_graph(calling(fake)), tmp_path / "a.fxqat")


def test_a_torch_observer_comes_back():
    spec = QuantSpec(observer="torch.ao.quantization.observer.MinMaxObserver")
    back = again(calling(make_fake_quantize(spec, "a"))).part
    assert type(back.activation_post_process).__module__ == "torch.ao.quantization.observer"


def test_a_function_is_added(monkeypatch):
    from fxqat.checkpoint import vocabulary

    monkeypatch.setattr(vocabulary, "_WORDS", list(vocabulary._WORDS))
    graph = fx.Graph()
    graph.output(graph.call_function(torch.cumsum, (graph.placeholder("x"), 1)))
    register_function(torch.cumsum, "torch.cumsum")
    x = torch.rand(2, 3)
    assert torch.equal(again(fx.GraphModule(nn.Module(), graph))(x), x.cumsum(1))


def replaced(model: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    for name, old in list(model.named_modules()):
        if type(old) is kind:
            model.set_submodule(name, make(old))


def other_norms(model):
    for one in model.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.eps, one.momentum = 1e-5, 0.3


def dilated(model):
    conv = model.model[4].m[0].cv1.conv
    conv.dilation, conv.padding = (2, 2), (2, 2)


def bare_pooling(model):
    """SPPF.cv1 as Ultralytics 8.4.18 to 8.4.123 built it, without an activation."""
    model.model[9].cv1.act = nn.Identity()


def other_pools(model):
    replaced(model, nn.MaxPool2d, lambda old: nn.MaxPool2d(3, 1, 1))


def other_upsampling(model):
    for one in model.modules():
        if isinstance(one, nn.Upsample):
            one.mode, one.align_corners = "bilinear", False


def no_shortcuts(model):
    for block in model.modules():
        if hasattr(block, "add") and isinstance(block.add, bool):
            block.add = False


def biases(model):
    conv = model.model[1].conv
    conv.bias = nn.Parameter(torch.rand(conv.out_channels))


def without_norms(model):
    model.fuse(verbose=False)


def pruned(model):
    stem, after = model.model[0], model.model[1]
    stem.conv, stem.bn = nn.Conv2d(3, 11, 3, 2, 1, bias=False), nn.BatchNorm2d(11, eps=1e-3)
    after.conv = nn.Conv2d(11, after.conv.out_channels, 3, 2, 1, bias=False)


def reflecting(model):
    model.model[0].conv.padding_mode = "reflect"
    model.model[0].conv._reversed_padding_repeated_twice = [1, 1, 1, 1]


def one_silu(model):
    shared = nn.SiLU(inplace=True)
    replaced(model, nn.SiLU, lambda old: shared)


ACTIVATIONS = (nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.1), nn.Hardswish, nn.Mish, nn.GELU, nn.ELU)
CHANGES: dict[str, Callable[[nn.Module], None]] = {
    one.__name__: one
    for one in (
        other_norms,
        dilated,
        bare_pooling,
        other_pools,
        other_upsampling,
        no_shortcuts,
        biases,
        without_norms,
        pruned,
        reflecting,
        one_silu,
    )
} | {
    type(make()).__name__: lambda model, make=make: replaced(model, nn.SiLU, lambda old: make()) for make in ACTIVATIONS
}


@pytest.fixture
def model():
    """Ultralytics' yolov8n with random weights and lively batch norms, in eval."""
    made, source = architecture("yolov8n.yaml", classes=3)
    generator = torch.Generator().manual_seed(0)
    for one in made.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_var.copy_(torch.rand(one.num_features, generator=generator) * 0.01 + 0.005)
    return made, source


@pytest.mark.parametrize("change", CHANGES)
def test_a_float_detector_comes_back_whatever_was_done_in_code(change, model, tmp_path, images):
    made, source = model
    CHANGES[change](made)
    detector = Detector(trace(made.eval(), "changed"), source, Recipe()).eval()
    again = fxqat.load(fxqat.save(detector, tmp_path / "a.fxqat"))
    with torch.no_grad():
        wanted = made(images)[0]
        assert torch.equal(detector(images)[0], wanted)
        assert torch.equal(again(images)[0], wanted)
    assert again.gm.state_dict().keys() == detector.gm.state_dict().keys()


def flat(y) -> list[torch.Tensor]:
    parts = list(y.values()) if isinstance(y, dict) else y
    return [parts] if isinstance(parts, torch.Tensor) else [one for part in parts for one in flat(part)]


FAMILIES = ("yolov3-tiny", "yolov9t", "yolo11n", "yolo12n", "yolov8n-seg", "yolo11n-cls", "yolo11n-obb")


@pytest.mark.parametrize("name", [*FAMILIES, "yolov10n end2end", "yolo26n-pose end2end"])
def test_every_family_comes_back(name, tmp_path, images):
    made, source = architecture(f"{name.split()[0]}.yaml")
    if name.endswith("end2end"):
        made.model[-1].end2end = True
    detector = Detector(trace(made), source, Recipe()).eval()
    qat, _ = fxqat.prepare(detector, "float")
    for index, model in enumerate((detector, qat)):
        again = fxqat.load(fxqat.save(model, tmp_path / f"{index}.fxqat"))
        assert again.source == model.source
        assert again.network == model.network
        with torch.no_grad():
            pairs = zip(flat(again(images[:1])), flat(model(images[:1])), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("change", ["other_norms", "dilated", "bare_pooling", "pruned", "one_silu", "LeakyReLU"])
def test_a_quantized_detector_comes_back_at_each_stage(change, model, tmp_path, images):
    made, source = model
    CHANGES[change](made)
    detector = Detector(trace(made.eval(), "changed"), source, Recipe()).eval()
    qat = fxqat.calibrate(fxqat.prepare(detector, "w8a8")[0], [images])
    back = fxqat.load(fxqat.save(qat, tmp_path / "a.fxqat"))
    int8 = fxqat.convert(back)[0]
    last = fxqat.load(fxqat.save(int8, tmp_path / "b.fxqat"))
    with torch.no_grad():
        assert torch.equal(back(images)[0], qat(images)[0])
        assert torch.equal(last(images)[0], fxqat.convert(qat)[0](images)[0])
    other = fxqat.retarget(back, "openvino")[0]
    assert other.recipe.target == "openvino"


def test_a_pass_that_swaps_activations_is_in_the_file(yolov8n, tmp_path, images):
    qat, _ = fxqat.prepare(yolov8n, "float", passes=[SwapActivation(to="hardswish", sites="model.2.**")])
    back = fxqat.load(fxqat.save(qat, tmp_path / "a.fxqat"))
    assert sum(operation(node) == "Hardswish" for node in back.gm.graph.nodes) == 4
    options = next(dict(done.options) for done in back.recipe.passes if done.name == "swap_activation")
    assert options == {"to": "hardswish", "sites": "model.2.**"}
    with torch.no_grad():
        assert torch.equal(back(images)[0], qat(images)[0])
