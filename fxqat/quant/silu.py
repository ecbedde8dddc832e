"""A quantized SiLU as one step: what an integer runtime computes with three tables, computed with one.

After its input quantizer SiLU has as many input values as there are codes, so quantize -> sigmoid -> quantize ->
multiply -> quantize is a table of at most 2**bits values, and so is its slope. Values and gradients are then one
look-up an element, in pieces that stay in the processor's cache, instead of some forty passes over memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from fxqat.quant import compiled_kernels, elementwise
from fxqat.quant.fake_quantize import FakeQuantize, LSQFakeQuantize
from fxqat.quant.gradients import forward_values, numbers_of, pass_inside
from fxqat.quant.spec import QParams

# Elements worked on at a time: four float32 buffers of this length are 2 MB, a core's second-level cache.
_PIECE = 1 << 17


class QuantizedSiLU(nn.Module):
    """SiLU between three fake quantizers, bit for bit ``output(y * sigmoid(input(x)))`` with ``y = input(x)`` and the
    sigmoid quantized too; gradients, those of learned scales included, are the same up to the order of sums.

    The quantizers are referred to, not owned: they stay where the model registers them, with their state and their
    other users. Where the table does not apply (GPU, an observer switched on, a quantizer off or per channel, a learned
    sigmoid scale, half precision, a compiler's tracing) the modules run one after the other. Under
    ``compiled_kernels.kernels()`` large tensors are looked up by a kernel made by a compiler, in place of pieces.

    Args:
        input: quantizer of the value before the activation.
        sigmoid: quantizer of the sigmoid, of fixed range.
        output: quantizer of the product.
    """

    def __init__(self, input: FakeQuantize, sigmoid: FakeQuantize, output: FakeQuantize) -> None:
        super().__init__()
        # a tuple is invisible to nn.Module, so no checkpoint holds the quantizers twice; deepcopy sees through it
        self._quantizers = (input, sigmoid, output)

    def forward(self, x: Tensor) -> Tensor:
        """The quantized SiLU of ``x``, same shape and dtype."""
        first, middle, last = self._quantizers
        if not self.uses_table(x):
            return self.step_by_step(x)
        table = _tabulate(first, middle, last)
        try:
            return _LookUp.apply(x, first.scale, _offset(first), last.scale, _offset(last), table)
        except IndexError:
            # NaN has no code; the modules pass it on, to where the training loop looks for it
            return self.step_by_step(x)

    def step_by_step(self, x: Tensor) -> Tensor:
        """The same by the three modules, one after the other."""
        first, middle, last = self._quantizers
        y = first(x)
        return last(y * middle(torch.sigmoid(y)))

    def uses_table(self, x: Tensor) -> bool:
        """Whether the table applies to ``x`` and the quantizers' present state."""
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
        return plain and x.numel() > 0 and all(map(_is_ready, self._quantizers)) and not _learns(self._quantizers[1])

    def extra_repr(self) -> str:
        """The codes of input, sigmoid and output."""
        return " -> ".join(str(one.spec) for one in self._quantizers)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """By input code, lowest first: the output and its slopes; and what the gradients of the scales need.

    Attributes:
        first, middle, last: numbers of the three quantizers.
        margins: steps outside their ranges up to which gradients pass, see gradients.
        learns: whether the scales of the first and of the last are learned.
        moves: whether their offsets are.
        values: output values.
        by_input: d output / d quantized input.
        by_scale: d output / d output scale, as if its zero point were 0.
        outside: 1 where the output saturates, else 0.
    """

    first: QParams
    middle: QParams
    last: QParams
    margins: tuple[float, float, float]
    learns: tuple[bool, bool]
    moves: tuple[bool, bool]
    values: Tensor
    by_input: Tensor
    by_scale: Tensor
    outside: Tensor

    @property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the three quantizers, see gradients.numbers_of."""
        first, middle, last = self.margins
        return numbers_of(self.first, first), numbers_of(self.middle, middle), numbers_of(self.last, last)


@torch.no_grad()
def _tabulate(first: FakeQuantize, middle: FakeQuantize, last: FakeQuantize) -> _Table:
    one, two, three = (quantizer.qparams() for quantizer in (first, middle, last))
    codes = torch.arange(one.quant_min, one.quant_max + 1, dtype=torch.float32) - one.zero_point
    y = codes * one.scale
    sigmoid = torch.sigmoid(y)
    rounded = forward_values(sigmoid, two)
    product = y * rounded
    values = forward_values(product, three)
    ones = torch.ones_like(y)
    inside = pass_inside(ones, product, three, margin=_margin(last))
    through = pass_inside(ones, sigmoid, two, margin=_margin(middle))
    return _Table(
        first=one,
        middle=two,
        last=three,
        margins=(_margin(first), _margin(middle), _margin(last)),
        learns=(_learns(first), _learns(last)),
        moves=(_offset(first) is not None, _offset(last) is not None),
        values=values,
        by_input=inside * (rounded + y * through * sigmoid * (1 - sigmoid)),
        by_scale=(values - inside * product) / three.scale,
        outside=1 - inside,
    )


class _LookUp(Function):
    """Looks ``x`` up; formulas of the gradients as in gradients.LearnedScale, chained through the table."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        first_scale: Tensor,
        first_offset: Tensor | None,
        last_scale: Tensor,
        last_offset: Tensor | None,
        table: _Table,
    ) -> Tensor:
        x = x if compiled_kernels.is_dense(x) else x.contiguous()
        ctx.save_for_backward(x)
        ctx.table = table
        if compiled_kernels.applies(x):
            found: Tensor = elementwise.looked_up(x, table.numbers[0], table.values)
            return found
        y = torch.empty_like(x)
        for _, out, _, index in _pieces(table, x, y):
            torch.index_select(table.values, 0, index, out=out)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), table = ctx.saved_tensors, ctx.table
        gradients = _compiled if compiled_kernels.applies(x) else _piece_by_piece
        grad_x, sums = gradients(compiled_kernels.like(grads[0], x), x, table)
        for index, quantizer in ((0, table.first), (2, table.last)):
            # as LearnedScale: with an offset, the codes relative to the zero point move
            if table.moves[index // 2]:
                sums[index] += sums[index + 1] * quantizer.zero_point[0]
            sums[index : index + 2] *= (x.numel() * quantizer.quant_max) ** -0.5
        wanted = (table.learns[0], table.moves[0], table.learns[1], table.moves[1])
        return grad_x, *(sums[i : i + 1] if wants else None for i, wants in enumerate(wanted)), None


def _compiled(grad: Tensor, x: Tensor, table: _Table) -> tuple[Tensor, Tensor]:
    grad_x, *sums = elementwise.silu_gradients(x, grad, *table.numbers)
    return grad_x, torch.stack(sums)


def _piece_by_piece(grad: Tensor, x: Tensor, table: _Table) -> tuple[Tensor, Tensor]:
    """The gradient of ``x``, and the sums of those of scale and offset of the first and of the last quantizer, the
    scales' as if zero points were 0; only of those that are learned."""
    grad_x = torch.empty_like(x)
    sums, scratch = torch.zeros(4), torch.empty(min(x.numel(), _PIECE))
    scale, _, _, *reach = table.numbers[0].tolist()
    for (part, out, codes, index), g in zip(_pieces(table, x, grad_x), _split(grad), strict=True):
        slope = scratch[: part.numel()]
        torch.index_select(table.by_input, 0, index, out=slope).mul_(g)
        torch.ops.aten.hardtanh_backward.grad_input(slope, part, *reach, grad_input=out)
        if table.learns[0]:
            sums[0] += torch.dot(slope, codes) - torch.dot(out, part) / scale
        if table.moves[0]:
            sums[1] += slope.sum() - out.sum()
        if table.learns[1]:
            sums[2] += torch.dot(g, torch.index_select(table.by_scale, 0, index, out=slope))
        if table.moves[1]:
            sums[3] += torch.dot(g, torch.index_select(table.outside, 0, index, out=slope))
    return grad_x, sums


def _pieces(table: _Table, x: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Pieces of ``x`` and ``out`` with the codes of the former, as floats relative to the zero point and as indices;
    the last two are overwritten by the next piece.
    """
    _, lowest, highest, *_ = table.numbers[0].tolist()
    length = min(x.numel(), _PIECE)
    codes, shifted = torch.empty(length), torch.empty(length)
    index = torch.empty(length, dtype=torch.int32)
    for part, result in zip(_split(x), _split(out), strict=True):
        c, t, i = (buffer[: part.numel()] for buffer in (codes, shifted, index))
        torch.div(part, table.first.scale, out=c)
        c.round_().clamp_(lowest, highest)
        i.copy_(torch.sub(c, lowest, out=t))
        yield part, result, c, i


def _split(x: Tensor) -> tuple[Tensor, ...]:
    return x.as_strided((x.numel(),), (1,)).split(_PIECE)


def _is_ready(quantizer: FakeQuantize) -> bool:
    return (
        quantizer.quantizing
        and not quantizer.observing
        and quantizer.calibrated_already
        and quantizer.ch_axis is None
        and quantizer.spec.gradient == "ste"
    )


def _learns(quantizer: FakeQuantize) -> bool:
    return isinstance(quantizer, LSQFakeQuantize)


def _offset(quantizer: FakeQuantize) -> Tensor | None:
    return quantizer.offset if isinstance(quantizer, LSQFakeQuantize) else None


def _margin(quantizer: FakeQuantize) -> float:
    return 0.0 if _learns(quantizer) else 0.5
