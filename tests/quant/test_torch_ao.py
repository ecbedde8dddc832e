"""The door to torch.ao: observers by name, QConfig and QConfigMapping in torch's own QAT flow, a quiet import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fxqat.errors import Problem
from fxqat.policy import Policy, Site
from fxqat.quant import torch_ao, torch_qconfig
from fxqat.quant.fake_quantize import make_fake_quantize
from fxqat.quant.spec import QConfig, QuantSpec
from fxqat.quant.torch_qconfig import LiveFakeQuantize

REPOSITORY = Path(__file__).resolve().parents[2]
ACT8 = QuantSpec(signed=False, symmetric=False, bits=8, observer="moving_average")
W8 = QuantSpec(axis=0)


def test_import_is_quiet() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "import fxqat.quant.torch_ao"], check=True, cwd=REPOSITORY)


def test_it_is_the_only_door() -> None:
    for path in (REPOSITORY / "fxqat").rglob("*.py"):
        if path.name == "torch_ao.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("torch.ao") for name in names), path


def test_observers_by_name() -> None:
    name = "torch.ao.quantization.observer.MovingAverageMinMaxObserver"
    assert torch_ao.observer_class(name).__name__ == "MovingAverageMinMaxObserver"
    fake_quant = make_fake_quantize(QuantSpec(observer=name))
    fake_quant.disable_fake_quant()
    fake_quant(torch.tensor([-2.0, 1.0]))
    fake_quant.update_qparams()
    # torch.ao's symmetric scale: twice the largest magnitude over the number of steps
    assert fake_quant.scale.item() == pytest.approx(2 * 2.0 / 255)


def test_per_channel_observer_by_name() -> None:
    name = "torch.ao.quantization.observer.PerChannelMinMaxObserver"
    fake_quant = make_fake_quantize(QuantSpec(observer=name, axis=0, narrow=True), channels=2)
    fake_quant.disable_fake_quant()
    fake_quant(torch.tensor([[1.0], [4.0]]))
    fake_quant.update_qparams()
    assert fake_quant.scale.tolist() == pytest.approx([1 / 127, 4 / 127])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.path.join", "a.b: observer 'os.path.join' is not allowed; expected a name that starts with torch.ao."),
        ("torch.ao.quantization.nowhere.X", "a.b: observer 'torch.ao.quantization.nowhere.X': torch has no module"),
        (
            "torch.ao.quantization.observer.MinMaxObservr",
            "a.b: observer 'torch.ao.quantization.observer.MinMaxObservr' is no observer class of torch; "
            "did you mean 'MinMaxObserver'?",
        ),
        ("torch.ao.quantization.observer.re", "a.b: observer 'torch.ao.quantization.observer.re' is no observer class"),
    ],
)
def test_errors(name: str, message: str) -> None:
    with pytest.raises(Problem, match=f"^{re.escape(message)}"):
        torch_ao.observer_class(name, "a.b")


def test_decomposed_operators_are_affines() -> None:
    x = torch.linspace(-3, 3, 50)
    codes = torch_ao.quantize_per_tensor(x, 0.02, 5, -128, 127, torch.int8)
    values = torch_ao.dequantize_per_tensor(codes, 0.02, 5, -128, 127, torch.int8)
    assert (values - x.clamp(-133 * 0.02, 122 * 0.02)).abs().max() <= 0.01001
    weight = torch.ones(2, 3, dtype=torch.int8)
    scales, zeros = torch.tensor([0.5, 2.0]), torch.zeros(2, dtype=torch.int32)
    out = torch_ao.dequantize_per_channel(weight, scales, zeros, 0, -128, 127, torch.int8)
    assert out[:, 0].tolist() == [0.5, 2.0]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.relu(self.first(x)))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_the_mapping_works_in_torchs_own_flow() -> None:
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    torch.manual_seed(0)
    mapping = torch_qconfig.to_torch_qconfig_mapping(
        {"first": QConfig(weight=W8, activation=ACT8), "second": QConfig()}
    )
    x = torch.randn(2, 3, 8, 8)
    model = Small().train()
    prepared = prepare_qat_fx(model, mapping, (x,))
    ours = {name: one for name, one in prepared.named_modules() if isinstance(one, LiveFakeQuantize)}
    assert "first.weight_fake_quant" in ours
    assert len(ours) >= 2
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    for _ in range(3):
        prepared(x).square().mean().backward()
        optimizer.step()
    weight = ours["first.weight_fake_quant"]
    assert weight.scale.shape == (4,)
    assert bool(torch.isfinite(weight.scale).all())
    assert all(one.scale.item() != 1.0 for name, one in ours.items() if name != "first.weight_fake_quant")
    prepared.apply(torch_ao.disable_observer)
    prepared.apply(torch_ao.disable_fake_quant)
    assert not any(one.observing or one.quantizing for one in ours.values())
    torch.testing.assert_close(prepared(x), model(x))


def test_a_policys_decisions_are_a_mapping() -> None:
    from fxqat.quant import to_torch_qconfig_mapping

    site = Site(path="first", op="QATConv2d")
    text = (
        "version: 1\ntarget: openvino\nspecs:\n  a: {}\n  w: {}\nrules:\n  - {site: first, weight: w, activation: a}\n"
    )
    decisions = Policy.parse(text, "p.yaml").assign([site])
    mapping = to_torch_qconfig_mapping({path: one.qconfig for path, one in decisions.items()})
    made = mapping.module_name_qconfigs["first"]
    assert (made.weight().dtype, made.activation().dtype) == (torch.qint8, torch.quint8)


def test_float_is_none() -> None:
    assert torch_qconfig.to_torch_qconfig(QConfig()) is None
    made = torch_qconfig.to_torch_qconfig(QConfig(weight=W8))
    assert made is not None
    assert type(made.activation()).__name__ == "NoopObserver"
    assert made.weight().dtype == torch.qint8


def test_learned_scales_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^scale: 'lsq' is not legal in torch.ao's flow, expected fixed$"):
        torch_qconfig.to_torch_qconfig(QConfig(weight=QuantSpec(scale="lsq")))
