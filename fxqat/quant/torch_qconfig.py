"""QConfig and QConfigMapping of torch.ao, made of fxqat's: a policy's decisions in torch's own QAT flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fxqat.quant.fake_quantize import FakeQuantize
from fxqat.quant.spec import QConfig, QParams, QuantSpec
from fxqat.quant.torch_ao import NoopObserver, TorchQConfig, TorchQConfigMapping


class LiveFakeQuantize(FakeQuantize):
    """For torch.ao's own QAT flow: follows its observer, learns the number of channels from the first tensor, and says
    its dtype in torch's quantized types.

    Args:
        spec: how to quantize; ``spec.scale`` must be "fixed".
        factory_kwargs: device of the state.
    """

    def __init__(self, *, spec: QuantSpec, factory_kwargs: dict[str, Any] | None = None) -> None:
        if spec.scale != "fixed":
            raise ValueError(f"scale: {spec.scale!r} is not legal in torch.ao's flow, expected fixed")
        super().__init__(spec, live=True)
        self.dtype = {torch.int8: torch.qint8, torch.uint8: torch.quint8}.get(spec.dtype, spec.dtype)
        self.to((factory_kwargs or {}).get("device"))

    def _set(self, qparams: QParams) -> None:
        if qparams.scale.shape != self.scale.shape:
            self.scale, self.zero_point = torch.empty_like(qparams.scale), torch.empty_like(qparams.zero_point)
        super()._set(qparams)


def to_torch_qconfig(qconfig: QConfig) -> TorchQConfig | None:
    """torch.ao's QConfig with fxqat's fake quantizers; None, torch.ao's word for float, where nothing is quantized.

    Raises:
        ValueError: a spec learns its scale, which torch.ao's flow, following observers, cannot do.
    """
    if qconfig.is_float:
        return None
    return TorchQConfig(activation=_constructor(qconfig.activation), weight=_constructor(qconfig.weight))


def to_torch_qconfig_mapping(sites: Mapping[str, QConfig]) -> TorchQConfigMapping:
    """torch.ao's QConfigMapping by module name; a site that is not named stays float."""
    mapping = TorchQConfigMapping().set_global(None)
    for site, qconfig in sites.items():
        mapping.set_module_name(site, to_torch_qconfig(qconfig))
    return mapping


def _constructor(spec: QuantSpec | None) -> Any:
    if spec is None:
        return NoopObserver.with_args(dtype=torch.float)
    LiveFakeQuantize(spec=spec)
    return LiveFakeQuantize.with_args(spec=spec)
