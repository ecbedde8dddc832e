"""Fake quantizers: modules that hold observer, scale, zero point and switches, and round tensors in float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.errors import Problem
from fxqat.quant.affine import SMALLEST_SCALE, choose_qparams, legal_scale
from fxqat.quant.compiled_kernels import has_compiler
from fxqat.quant.gradients import DifferentiableSoft, LearnedScale, StraightThrough
from fxqat.quant.observers import RangeObserver, keep_float32, make_observer
from fxqat.quant.spec import QParams, QuantSpec
from fxqat.quant.torch_ao import FakeQuantizeBase

_ESTIMATORS = {"ste": StraightThrough, "dsq": DifferentiableSoft}


class FakeQuantize(FakeQuantizeBase):
    """A fake quantizer with one scale for the whole tensor: quantize and dequantize in float.

    Scale and zero point are taken from the observer only when :meth:`update_qparams` is called, so a step that only
    observes computes no parameters. torch.ao's functions ``enable_observer``, ``enable_fake_quant`` and so on switch
    observing and quantizing. Do not write to the two switch buffers directly: each has a copy in Python, which saves
    waiting for a GPU, and the copy would not change.

    Args:
        spec: how to quantize; ``spec.axis`` must be None here.
        site: named in errors.
        live: follow the observer at every observed step, as torch.ao's fake quantizers do.

    Attributes:
        scale: float32, shape [1]; 1.0 until calibrated. Stays float32 in a half-precision model.
        zero_point: int32, shape [1].
        calibrated: uint8, shape [1]: 1 once scale and zero_point have been set.
        activation_post_process: the observer.
        compiled: compute with compiled kernels where they apply; see ``use_kernels``.
    """

    scale: Tensor
    zero_point: Tensor
    calibrated: Tensor
    activation_post_process: Any
    _observing: bool
    _quantizing: bool
    _ready: bool
    compiled: bool = False

    def __init__(self, spec: QuantSpec, site: str = "", *, channels: int | None = None, live: bool = False) -> None:
        super().__init__()
        self.spec, self.site, self.live = spec, site, live
        self.activation_post_process = make_observer(spec, site, channels)
        self.quant_min, self.quant_max, self.dtype, self.ch_axis = spec.quant_min, spec.quant_max, spec.dtype, spec.axis
        self.qscheme = self.activation_post_process.qscheme
        start = torch.zeros(channels or 1)
        qparams = choose_qparams(start, start, spec)
        self._add_scale(torch.ones(channels or 1))
        self.register_buffer("zero_point", qparams.zero_point)
        self.register_buffer("calibrated", torch.tensor([0], dtype=torch.uint8))
        self._mirror()
        if spec.fixed is not None:
            low, high = (torch.tensor([float(end)]) for end in spec.fixed)
            self._set(choose_qparams(low, high, spec))

    def _add_scale(self, scale: Tensor) -> None:
        self.register_buffer("scale", scale)

    @property
    def observing(self) -> bool:
        """Whether the observer is switched on."""
        return self._observing

    @property
    def quantizing(self) -> bool:
        """Whether fake quantization is switched on."""
        return self._quantizing

    @property
    def calibrated_already(self) -> bool:
        """Whether scale and zero point have been set; read without waiting for a GPU."""
        return self._ready

    def forward(self, x: Tensor) -> Tensor:
        """Observe and fake-quantize ``x`` as the switches say; same shape and dtype.

        Raises:
            Problem: it is to quantize, but has never been given a range.
        """
        if self._observing:
            self.observe(x)
        if not self._quantizing:
            return x
        if not self._ready:
            self._first_range()
        return self.quantize(x)

    def observe(self, x: Tensor) -> None:
        """Show ``x`` to the observer."""
        self.activation_post_process(x.detach())
        if self.live:
            self.update_qparams()

    def quantize(self, x: Tensor) -> Tensor:
        """``x`` fake-quantized with the current scale and zero point, regardless of the switches."""
        return _ESTIMATORS[self.spec.gradient].apply(x, self._present())

    def qparams(self) -> QParams:
        """A detached copy of the present numbers."""
        present = self._present()
        return self._with(present.scale.detach().clone(), present.zero_point.clone())

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Scale and zero point that the observer proposes (torch.ao's protocol); changes nothing."""
        if self.spec.fixed is not None:
            return self.scale.detach(), self.zero_point
        return self.activation_post_process.calculate_qparams()

    def renew_observer(self) -> None:
        """Replace the observer by a new one that has seen nothing."""
        channels = None if self.ch_axis is None else self.scale.numel()
        self.activation_post_process = make_observer(self.spec, self.site, channels).to(self.scale.device)

    def observed_qparams(self) -> QParams:
        """Quantization parameters for what the observer saw; with a fixed range, those of that range.

        Raises:
            Problem: the observer saw nothing, or saw NaN or infinity.
        """
        if self.spec.fixed is not None:
            return self.qparams()
        observer = self.activation_post_process
        if isinstance(observer, RangeObserver):
            return choose_qparams(*observer.range(), self.spec)
        return self._with(*_from_torch(observer, self.site))

    def update_qparams(self) -> None:
        """Take scale and zero point from the observer; with a fixed range, nothing changes.

        Raises:
            Problem: the observer saw nothing, or saw NaN or infinity.
        """
        if self.spec.fixed is None:
            self._set(self.observed_qparams())

    def follow(self, low: Tensor, high: Tensor) -> None:
        """Set scale and zero point for the range ``low`` to ``high``, shapes [1] or [C]; used for weights."""
        self._set(choose_qparams(low, high, self.spec))

    def load_qparams(self, qparams: QParams) -> None:
        """Set scale and zero point."""
        self._set(qparams)

    def raise_scale(self, least: Tensor) -> None:
        """Raise the scale to at least ``least``, float32 [C]; per tensor, to at least the largest of them."""
        least = least if self.ch_axis is not None else least.max().view(1)
        self.scale.data.copy_(legal_scale(torch.maximum(self.scale.data, least), self.spec.power_of_two))

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Switch fake quantization on or off."""
        super().enable_fake_quant(enabled)
        self._quantizing = bool(enabled)

    def enable_observer(self, enabled: bool = True) -> None:
        """Switch the observer on or off."""
        super().enable_observer(enabled)
        self._observing = bool(enabled)

    def extra_repr(self) -> str:
        """Integer type, scale and zero point, and what is switched off."""
        numbers = (
            f"scale={self.scale.item():.4g}, zero_point={self.zero_point.item()}" if self.scale.numel() == 1 else ""
        )
        off = [word for word, on in (("observer", self._observing), ("fake_quant", self._quantizing)) if not on]
        return ", ".join(part for part in (str(self.spec), numbers, f"off: {' '.join(off)}" if off else "") if part)

    def _present(self) -> QParams:
        return self._with(self.scale, self.zero_point)

    def _with(self, scale: Tensor, zero_point: Tensor) -> QParams:
        return QParams(
            scale=scale,
            zero_point=zero_point,
            quant_min=self.quant_min,
            quant_max=self.quant_max,
            axis=self.ch_axis,
            dtype=self.dtype,
            compiled=self.compiled,
        )

    def _set(self, qparams: QParams) -> None:
        with torch.no_grad():
            self.scale.copy_(qparams.scale)
            self.zero_point.copy_(qparams.zero_point)
        if not self._ready:
            self.calibrated.fill_(1)
            self._ready = True

    def _first_range(self) -> None:
        if not self._observing:
            raise Problem(
                self.site, "quantizes without a range", remedy="calibrate it, or load a calibrated checkpoint"
            )
        self.update_qparams()

    def _mirror(self) -> None:
        self._observing = bool(self.observer_enabled[0])
        self._quantizing = bool(self.fake_quant_enabled[0])
        self._ready = bool(self.calibrated[0])

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._mirror()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        return keep_float32(self, ("scale",), lambda: super(FakeQuantize, self)._apply(fn, recurse))


class PerChannelFakeQuantize(FakeQuantize):
    """A fake quantizer with a scale for each index of ``spec.axis``, which has the length ``channels``."""

    def __init__(self, spec: QuantSpec, site: str = "", *, channels: int, live: bool = False) -> None:
        super().__init__(spec, site, channels=channels, live=live)


class LSQFakeQuantize(FakeQuantize):
    """Learns its scale (LSQ), and its offset where ``spec.scale`` is "lsq+"; starts from calibration.

    Attributes:
        scale: nn.Parameter, float32, [1] or [C]; clamped to SMALLEST_SCALE at the start of each forward.
        offset: nn.Parameter, float32, [1], the value of code 0, ``-zero_point * scale``; None with "lsq".
        zero_point: int32; with "lsq+" follows ``round(-offset / scale)`` at the start of each forward, since a runtime
            has integer zero points only.
    """

    offset: nn.Parameter | None

    def __init__(self, spec: QuantSpec, site: str = "", *, channels: int | None = None, live: bool = False) -> None:
        super().__init__(spec, site, channels=channels, live=live)
        learns_offset = spec.scale == "lsq+"
        self.register_parameter("offset", nn.Parameter(torch.zeros(1)) if learns_offset else None)

    def _add_scale(self, scale: Tensor) -> None:
        self.scale = nn.Parameter(scale)

    def quantize(self, x: Tensor) -> Tensor:
        """``x`` fake-quantized with the present scale and offset, with gradients for all three."""
        self.settle()
        return LearnedScale.apply(x, self.scale, self.offset, self._with(self.scale.detach(), self.zero_point))

    def qparams(self) -> QParams:
        """A detached copy of the present numbers."""
        self.settle()
        return super().qparams()

    def settle(self) -> None:
        """Make the scale legal after an optimizer's step, and the zero point that of the offset."""
        # through .data: the module may run twice in one forward, and autograd would call that a change under its feet
        scale = self.scale.data
        scale.clamp_(min=SMALLEST_SCALE)
        if self.offset is not None and self._ready:
            offset = self.offset.data
            offset.clamp_(-self.quant_max * scale, -self.quant_min * scale)
            self.zero_point.data.copy_((-offset / scale).round_())

    def _set(self, qparams: QParams) -> None:
        super()._set(qparams)
        if self.offset is not None:
            with torch.no_grad():
                self.offset.copy_(-qparams.zero_point * qparams.scale)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        names = () if self.offset is None else ("offset",)
        return keep_float32(self, names, lambda: super(LSQFakeQuantize, self)._apply(fn, recurse))


def use_kernels(module: nn.Module, wanted: bool = True) -> bool:
    """Let every fake quantizer in ``module`` compute with compiled kernels, where there is a compiler; gives whether
    they do. The bits of the forward stay, gradients change by the order of their sums."""
    compiled = wanted and has_compiler()
    for one in module.modules():
        if isinstance(one, FakeQuantize):
            one.compiled = compiled
    return compiled


def make_fake_quantize(
    spec: QuantSpec, site: str = "", channels: int | None = None, *, live: bool = False
) -> FakeQuantize:
    """The fake quantizer that ``spec`` asks for.

    Args:
        spec: how to quantize.
        site: named in errors.
        channels: length of ``spec.axis``, which it is needed for.
        live: follow the observer at every observed step.

    Raises:
        ValueError: ``spec`` is per channel and ``channels`` is missing.
    """
    if spec.axis is not None and channels is None:
        raise ValueError(f"channels: None is not legal with {spec}, expected the length of axis {spec.axis}")
    if spec.scale != "fixed":
        return LSQFakeQuantize(spec, site, channels=channels if spec.axis is not None else None, live=live)
    if spec.axis is None or channels is None:
        return FakeQuantize(spec, site, live=live)
    return PerChannelFakeQuantize(spec, site, channels=channels, live=live)


def _from_torch(observer: Any, site: str) -> tuple[Tensor, Tensor]:
    low = getattr(observer, "min_val", None)
    if low is not None and (low.numel() == 0 or bool(torch.isinf(low).all())):
        raise Problem(site, "nothing was observed", remedy="run calibration images through the model first")
    scale, zero_point = observer.calculate_qparams()
    if not bool(torch.isfinite(scale).all()):
        raise Problem(site, "NaN or infinity was observed", expected="finite values")
    return scale.float(), zero_point.to(torch.int32)
