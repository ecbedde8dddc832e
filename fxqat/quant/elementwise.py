"""What quantizers compute, as chains of elementwise steps that a compiler makes one kernel each of.

The same formulas as in affine.py, gradients.py and silu.py; those are the definition, these are quick. ``numbers`` of a
quantizer are the scale, the lowest and the highest code relative to the zero point, and the ends of the open interval
of values whose gradient passes (gradients.numbers_of), as one tensor of five.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fxqat.quant.compiled_kernels import Kernel


def _codes(x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Codes relative to the zero point, and the steps that were rounded to them."""
    scale, lowest, highest, _, _ = numbers
    steps = x / scale
    return torch.clamp(torch.round(steps), lowest, highest), steps


def _pass(grad: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
    """``grad`` where it passes, else 0."""
    _, _, _, low, high = numbers
    return torch.where((x > low) & (x < high), grad, 0.0)


def _fake_quantized(x: Tensor, numbers: Tensor) -> Tensor:
    """affine.fake_quantize."""
    codes, _ = _codes(x, numbers)
    # +0.0 for the -0.0 that rounding leaves; a compiler would drop the addition of zero
    return torch.where(codes == 0, 0.0, codes * numbers[0])


def _learned_scale(x: Tensor, grad: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """gradients.LearnedScale: the gradient of ``x``, and the sums of those of scale (as if the zero point were 0) and
    offset, without their gain."""
    codes, steps = _codes(x, numbers)
    through = _pass(grad, x, numbers)
    return through, (grad * codes - through * steps).sum(), (grad - through).sum()


def _looked_up(x: Tensor, numbers: Tensor, values: Tensor) -> Tensor:
    """``values`` at the code of ``x``."""
    codes, _ = _codes(x, numbers)
    # NaN has no code: any index will do, since what it is looked up for is not used
    index = torch.clamp((codes - numbers[1]).to(torch.int32), 0, values.shape[0] - 1)
    return torch.where(x == x, values[index], x)


def _silu_gradients(
    x: Tensor, grad: Tensor, first: Tensor, middle: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """silu._LookUp: the gradient of ``x``, and the sums as in _learned_scale of the first and of the last quantizer."""
    codes, steps = _codes(x, first)
    y = codes * first[0]
    sigmoid = torch.sigmoid(y)
    gate = _codes(sigmoid, middle)[0] * middle[0]
    product = y * gate
    inside = _pass(grad, product, last)
    inner = inside * (gate + _pass(y * sigmoid * (1 - sigmoid), sigmoid, middle))
    through = _pass(inner, x, first)
    codes3, steps3 = _codes(product, last)
    scale, offset = (inner * codes - through * steps).sum(), (inner - through).sum()
    return through, scale, offset, (grad * codes3 - inside * steps3).sum(), (grad - inside).sum()


fake_quantized = Kernel(_fake_quantized)
learned_scale = Kernel(_learned_scale, dense=2)
looked_up = Kernel(_looked_up)
silu_gradients = Kernel(_silu_gradients, dense=2)
