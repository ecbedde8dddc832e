"""The base of all observers: the lowest and highest value seen, and what torch.ao asks of an observer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fxqat.errors import Problem
from fxqat.quant.affine import scale_and_zero_point
from fxqat.quant.torch_ao import ObserverBase

SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
_CODES = {
    torch.qint8: (-128, 127),
    torch.int8: (-128, 127),
    torch.quint8: (0, 255),
    torch.uint8: (0, 255),
    torch.int16: (-32768, 32767),
    torch.uint16: (0, 65535),
}


class RangeObserver(ObserverBase):
    """Base of all observers here: the lowest and highest value seen, in float32.

    Args:
        dtype: integer type of the codes, torch's quantized types included.
        qscheme: torch.per_tensor_affine, torch.per_tensor_symmetric or their per-channel kin.
        quant_min: lowest code, by default the type's.
        quant_max: highest code, by default the type's.
        power_of_two: scales are rounded up to powers of two.
        site: named in errors.
        channels: length of the observed axis; 1 for one range a tensor.
        is_dynamic: kept for torch.ao; ranges here are never dynamic.
        reduce_range: torch.ao's older spelling of one bit less.
        eps: accepted for torch.ao's sake and unused, see affine.SMALLEST_SCALE.
        factory_kwargs: device of the state.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        *,
        dtype: torch.dtype = torch.quint8,
        qscheme: Any = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        power_of_two: bool = False,
        site: str = "",
        channels: int = 1,
        is_dynamic: bool = False,
        reduce_range: bool = False,
        eps: float = 0.0,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic)
        lowest, highest = (code >> int(reduce_range) for code in _CODES[dtype])
        self.quant_min = lowest if quant_min is None else quant_min
        self.quant_max = highest if quant_max is None else quant_max
        self.qscheme, self.power_of_two, self.site = qscheme, power_of_two, site
        device = (factory_kwargs or {}).get("device")
        # low above high says that nothing has been seen yet, without a flag that a GPU would have to wait for
        self.register_buffer("low", torch.full((channels,), torch.inf, device=device))
        self.register_buffer("high", torch.full((channels,), -torch.inf, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Take ``x`` into account and return it."""
        if x.numel():
            self.observe(x.detach())
        return x

    def observe(self, x: Tensor) -> None:
        """Widen the range to hold the non-empty tensor ``x``."""
        low, high = self.ends(x)
        torch.minimum(self.low, low, out=self.low)
        torch.maximum(self.high, high, out=self.high)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of ``x``, each of the shape of the range."""
        low, high = torch.aminmax(x)
        return low.float().view(1), high.float().view(1)

    def reset(self) -> None:
        """Forget everything seen."""
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)

    @property
    def seen(self) -> bool:
        """Whether any tensor has been observed."""
        return not bool((self.low > self.high).any())

    def checked(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest value seen.

        Raises:
            Problem: nothing was seen, or a NaN or infinity was.
        """
        if not self.seen:
            raise Problem(self.site, "nothing was observed", remedy="run calibration images through the model first")
        for value, is_so in (("NaN", torch.isnan), ("infinity", torch.isinf)):
            if bool((is_so(self.low) | is_so(self.high)).any()):
                raise Problem(
                    self.site,
                    f"{value} was observed",
                    expected="finite values",
                    remedy="check the weights and the calibration images",
                )
        return self.low, self.high

    def range(self) -> tuple[Tensor, Tensor]:
        """The range to quantize, float32 tensors of shape [1] or [C].

        Raises:
            Problem: nothing was seen, or a NaN or infinity was.
        """
        low, high = self.checked()
        return low.clone(), high.clone()

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32) of the range, as torch.ao asks for them."""
        low, high = self.range()
        symmetric = self.qscheme in SYMMETRIC
        return scale_and_zero_point(
            low, high, self.quant_min, self.quant_max, symmetric=symmetric, power_of_two=self.power_of_two
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        return keep_float32(self, ("low", "high"), lambda: super(RangeObserver, self)._apply(fn, recurse))

    def extra_repr(self) -> str:
        """One word: the codes."""
        return f"{self.quant_min}:{self.quant_max}"


def keep_float32(module: nn.Module, names: tuple[str, ...], apply: Callable[[], nn.Module]) -> nn.Module:
    """Run ``apply`` (an nn.Module._apply) and undo what it did to the precision, not the device, of ``names``."""
    before = {name: getattr(module, name).data for name in names}
    result = apply()
    for name, old in before.items():
        new = getattr(module, name)
        if new.dtype != old.dtype:
            # a scale rounded to half precision is another quantizer than the one that was calibrated
            new.data = old.to(new.device)
    return result
