"""What a camera does to a scene: blur, light, haze and noise, in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fxqat.demo.canvas import Image
from fxqat.demo.portable_random import Dice


@dataclass(frozen=True, kw_only=True)
class Light:
    """How a scene is lit: a gain for each of red, green, blue, a gamma, and the loss towards the corners (of 256)."""

    gains: tuple[float, float, float]
    gamma: float
    vignette: int


NOON = Light(gains=(1.02, 1.0, 0.97), gamma=1.0, vignette=24)
OVERCAST = Light(gains=(0.88, 0.91, 0.95), gamma=1.05, vignette=32)
GLARE = Light(gains=(1.22, 1.18, 1.1), gamma=0.9, vignette=16)
EVENING = Light(gains=(0.98, 0.78, 0.58), gamma=1.2, vignette=64)
NIGHT = Light(gains=(0.5, 0.52, 0.66), gamma=1.35, vignette=110)
LIGHTS = (NOON, NOON, OVERCAST, OVERCAST, GLARE, EVENING, NIGHT)


def photograph(picture: Image, dice: Dice) -> Image:
    """Return the picture as a camera would have taken it; uint8 RGB in and out, same shape."""
    light = dice.pick(LIGHTS)
    if dice.chance(0.25):
        picture = haze(picture, dice.below(110))
    picture = expose(picture, light, dice.between(0.85, 1.15))
    for _ in range(dice.below(4)):
        picture = soften(picture)
    if dice.chance(0.35):
        picture = shake(picture, 1 + dice.below(4), dice.chance(0.7))
    return grain(picture, dice, 1 + dice.below(14 if light is NIGHT else 8))


def expose(picture: Image, light: Light, gain: float) -> Image:
    """Apply gains, gamma and vignette."""
    levels = np.arange(256) / 255.0
    tables = [np.clip(np.rint((levels * g * gain) ** light.gamma * 255), 0, 255) for g in light.gains]
    lit = np.stack([table.astype(np.uint8)[picture[..., c]] for c, table in enumerate(tables)], axis=-1)
    return ((lit.astype(np.uint16) * _falloff(picture.shape[:2], light.vignette)[..., None]) >> 8).astype(np.uint8)


def haze(picture: Image, density: int) -> Image:
    """Blend towards pale grey by ``density`` parts of 256."""
    mixed = picture.astype(np.uint16) * (256 - density) + np.uint16(206 * density)
    return (mixed >> 8).astype(np.uint8)


def soften(picture: Image) -> Image:
    """Convolve with the binomial [1 2 1] / 4 along both axes, edges repeated."""
    wide = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.uint16)
    tall = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    total = tall[:, :-2] + 2 * tall[:, 1:-1] + tall[:, 2:]
    return ((total + 8) >> 4).astype(np.uint8)


def shake(picture: Image, reach: int, level: bool) -> Image:
    """Average over a shift of -reach..reach pixels, sideways or up and down, edges repeated."""
    upright = picture if level else picture.swapaxes(0, 1)
    width = upright.shape[1]
    wide = np.pad(upright, ((0, 0), (reach, reach), (0, 0)), mode="edge").astype(np.uint16)
    total = sum((wide[:, i : i + width] for i in range(1, 2 * reach + 1)), start=wide[:, :width])
    mean = ((total + reach) // (2 * reach + 1)).astype(np.uint8)
    return mean if level else np.ascontiguousarray(mean.swapaxes(0, 1))


def grain(picture: Image, dice: Dice, strength: int) -> Image:
    """Add nearly normal noise of about ``strength`` levels: the centred sum of four octets (deviation 148), scaled."""
    octets = dice.octets(4, *picture.shape)
    total = octets.sum(axis=0, dtype=np.int16) - np.int16(510)
    noise = (total.astype(np.int32) * strength) >> 7
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _falloff(shape: tuple[int, ...], loss: int) -> NDArray[np.uint16]:
    """Return 256 at the centre, 256 - loss in the corners, falling with the square of the distance."""
    y, x = (np.arange(n, dtype=np.int64) * 2 - n + 1 for n in shape)
    far = int(x[-1] ** 2 + y[-1] ** 2)
    return (256 - (y[:, None] ** 2 + x[None] ** 2) * loss // far).astype(np.uint16)
