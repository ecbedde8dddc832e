"""learn_scales: calibrated activation quantizers learn their scales in training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx, nn

from fxqat.graph.pass_text import TextPass
from fxqat.graph.pipeline import PassReport, Stage
from fxqat.passes.quant_graph import QuantGraph
from fxqat.quant.fake_quantize import FakeQuantize, LSQFakeQuantize, make_fake_quantize
from fxqat.quant.spec import QuantSpec


@dataclass(frozen=True, kw_only=True)
class LearnScales(TextPass):
    """Let every activation quantizer learn its scale (LSQ, arXiv:1902.08153), from the calibrated one on.

    Quantizers whose range is given, that round scales to powers of two, or that have an estimator of their own stay.
    The names in the state dict stay, so a trained state fits the graph as it was before.
    """

    name: str = "learn_scales"
    gives: Stage | None = None

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Put learning quantizers in place of calibrated ones, under the same paths."""
        found = QuantGraph(gm).quantizers_by_path()
        chosen = [path for path, fake in found.items() if _learning(fake.spec) != fake.spec]
        for path in chosen:
            _put(gm, path, _learning(found[path].spec))
        return PassReport(says=f"{len(chosen)} of {len(found)} activation scales are learned")


def learned_scales(model: nn.Module) -> list[nn.Parameter]:
    """Scales and offsets that are learned, in a fixed order."""
    fakes = [module for module in model.modules() if isinstance(module, LSQFakeQuantize)]
    return [parameter for fake in fakes for parameter in fake.parameters(recurse=False)]


def _learning(spec: QuantSpec) -> QuantSpec:
    known = spec.scale != "fixed" or spec.fixed is not None
    return spec if known or spec.power_of_two or spec.gradient != "ste" else replace(spec, scale="lsq")


def _put(gm: fx.GraphModule, path: str, spec: QuantSpec) -> None:
    old = gm.get_submodule(path)
    assert isinstance(old, FakeQuantize)
    new = make_fake_quantize(spec, old.site).to(old.scale.device)
    new.activation_post_process = old.activation_post_process
    if old.calibrated_already:
        new.load_qparams(old.qparams())
    new.enable_observer(old.observing)
    new.enable_fake_quant(old.quantizing)
    gm.add_submodule(path, new.train(old.training))
