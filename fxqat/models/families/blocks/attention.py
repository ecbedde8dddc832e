"""Attention over the places of a map. Softmax and products are operations of their own, with the role ``attention``."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from fxqat.models.families.opaque import Opaque

ROLE = "attention"
_OPERATIONS = ("scaled", "transpose*", "matmul*", "softmax", "split*", "flatten*", "unflatten*", "permute*", "place*")


class SpaceLike(Opaque):
    """Places in a row, (B, C, H * W), as the map (B, C, H, W) that has the size of another."""

    moves = True

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, C, H, W), contiguous, with H and W of ``like`` (B, ?, H, W)."""
        return x.unflatten(2, like.shape[2:]).contiguous()


class Scaled(Opaque):
    """A tensor times a number: no product of two tensors, and so no operation of an integer kernel."""

    arguments = ("factor",)

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """``x`` times the factor."""
        return x * self.factor

    def extra_repr(self) -> str:
        """The factor."""
        return f"{self.factor:.9g}"


class AttentionAdapter(nn.Module):
    """Ultralytics' Attention, of C2PSA and PSA: ``proj(v softmax(q' k / sqrt(d))' + pe(v))``."""

    # Globs of sites, relative to the block, and their roles: what is no convolution.
    roles: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(_OPERATIONS, (ROLE,))

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.pe = block.qkv, block.proj, block.pe
        self.heads, self.scaled = block.num_heads, Scaled(block.scale)
        self.sizes = [block.key_dim, block.key_dim, block.head_dim]
        self.place = SpaceLike()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        each = self.qkv(x).flatten(2).unflatten(1, (self.heads, sum(self.sizes)))
        q, k, v = each.split(self.sizes, 2)
        weights = (self.scaled(q).transpose(-2, -1) @ k).softmax(-1)
        seen = self.place((v @ weights.transpose(-2, -1)).flatten(1, 2), x)
        return self.proj(seen + self.pe(self.place(v.flatten(1, 2), x)))


class AreaAttentionAdapter(nn.Module):
    """Ultralytics' AAttn, of A2C2f (YOLO12, arXiv:2502.12524): attention within each of ``area`` parts of the map."""

    roles: ClassVar[dict[str, tuple[str, ...]]] = AttentionAdapter.roles

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.pe = block.qkv, block.proj, block.pe
        self.heads, self.size, self.area = block.num_heads, block.head_dim, block.area
        self.place, self.scaled = SpaceLike(), Scaled(self.size**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); H * W is a multiple of ``area``."""
        rows = self.qkv(x).flatten(2).transpose(1, 2)
        rows = rows.unflatten(1, (self.area, -1)).flatten(0, 1) if self.area > 1 else rows
        each = rows.unflatten(2, (self.heads, 3 * self.size)).permute(0, 2, 3, 1)
        q, k, v = each.split([self.size] * 3, 2)
        weights = (self.scaled(q).transpose(-2, -1) @ k).softmax(-1)
        seen = self._map(v @ weights.transpose(-2, -1), x)
        return self.proj(seen + self.pe(self._map(v, x)))

    def _map(self, each: Tensor, x: Tensor) -> Tensor:
        """(B * area, heads, size, N) as a map like ``x``."""
        rows = each.permute(0, 3, 1, 2).flatten(2)
        rows = rows.unflatten(0, (-1, self.area)).flatten(1, 2) if self.area > 1 else rows
        return self.place(rows.transpose(1, 2), x)
