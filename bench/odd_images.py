"""Odd images: which are read, whether their pixels are right, and that each of the others is one line.

    python -m bench.odd_images [--count 300] [--seed 0] [--json FILE]

Pictures of a few colours are written in the forms that people bring: 16 bits, grey, palettes, CMYK, rotated by EXIF,
animated, in several pages, of extreme shapes; and damaged: cut short, changed, or HTML under an image's name. What is
read is compared with Pillow's decoding, turned upright, a decoder that fxqat does not use for these; and, bit for bit,
with the pixels that Ultralytics' own data set loads.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from bench.command import parser, run
from fxqat.data.images import Unreadable, load_image, read_pixels
from fxqat.errors import Problem

Dice = random.Random
IMGSZ = 64
_ORIENTATION = 0x0112
# Mean difference of decoders, of 255: lossy formats round otherwise, and colours of 4 inks have no one meaning.
_NEAR, _CMYK = 3.0, 12.0


def main() -> int:
    """Print the table."""
    options = parser("odd_images", __doc__)
    options.add_argument("--count", type=int, default=300, help="images in all (default 300)")
    options.add_argument("--seed", type=int, default=0, help="of pictures and damage (default 0)")
    return run(options.parse_args(), measure)


def measure(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Count the outcomes of each kind of image, and print them.

    Raises:
        Problem: pixels are wrong.
    """
    with tempfile.TemporaryDirectory(prefix="odd-images-") as folder:
        counts = trials(Path(folder), options.count, options.seed)
    words = ("right", "refused", "wrong")
    print(f"| image | {' | '.join(words)} |\n| {' | '.join('---' for _ in range(1 + len(words)))} |")
    for kind, row in counts.items():
        print(f"| {kind} | {' | '.join(str(row[word]) for word in words)} |")
    if wrong := sum(row["wrong"] for row in counts.values()):
        raise Problem("odd_images", f"{wrong} images have other pixels than they should", remedy="see above")
    return {kind: dict(row) for kind, row in counts.items()}


def trials(folder: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    """``count`` images, written into ``folder`` and read one after another.

    Returns:
        For each kind, how many were read ``right``, ``refused`` with one line, and ``wrong``.
    """
    dice, kinds = Dice(seed), {**READABLE, **DAMAGED}
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for trial in range(count):
        kind = list(kinds)[trial % len(kinds)]
        path = kinds[kind](folder / f"{trial}", dice)
        counts[kind][outcome(path, _CMYK if "CMYK" in kind else _NEAR)] += 1
        path.unlink()
    return counts


def outcome(path: Path, near: float) -> str:
    """``refused`` with one line, ``right`` or ``wrong``.

    Args:
        path: of the image.
        near: the largest mean difference from Pillow's pixels, of 255.
    """
    try:
        pixels, planes = read_pixels(path), load_image(path, IMGSZ)
    except Unreadable as error:
        if "\n" in str(error):
            raise
        return "refused"
    assert planes.shape == (3, IMGSZ, IMGSZ)
    assert 0 <= float(planes.min()) <= float(planes.max()) <= 1
    try:
        wanted = upright(path)
    except (OSError, SyntaxError, ValueError) as error:
        print(f"{path.name} is read, and by Pillow not: {error}")
        return "wrong"
    is_right = pixels.shape == wanted.shape and np.abs(pixels[..., ::-1].astype(float) - wanted).mean() <= near
    return "right" if is_right and np.array_equal(pixels, _by_ultralytics(path)) else "wrong"


def upright(path: Path) -> np.ndarray:
    """The first picture of a file, (H, W, 3) uint8 RGB, as Pillow decodes and turns it."""
    with _opened(path) as opened:
        turned = ImageOps.exif_transpose(opened)
        if turned.mode.startswith("I"):  # 16 bits, of which the upper 8 are what is seen
            high = (np.asarray(turned).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(high[..., None], 3, axis=2)
        return np.asarray(turned.convert("RGBA").convert("RGB"))


def _opened(path: Path) -> Any:
    from ultralytics.utils.patches import _image_open

    return _image_open(path)  # Pillow's own, without Ultralytics' search for further decoders


def _by_ultralytics(path: Path) -> Any:
    from ultralytics.data.base import BaseDataset

    # its own loading without its search for labels: one file, not cached, not resized
    bare = BaseDataset.__new__(BaseDataset)
    bare.ims, bare.im_files, bare.npy_files = [None], [str(path)], [path.with_suffix(".npy")]
    bare.cv2_flag, bare.channels, bare.augment, bare.imgsz, bare.prefix = cv2.IMREAD_COLOR, 3, False, IMGSZ, ""
    bare.cache = None
    return bare.load_image(0, rect_mode=False)[0] if _is_unscaled(path) else read_pixels(path)


def _is_unscaled(path: Path) -> bool:
    return upright(path).shape[:2] == (IMGSZ, IMGSZ)


def picture(dice: Dice, height: int = IMGSZ, width: int = IMGSZ) -> np.ndarray:
    """Four quarters of smooth, different colours, (H, W, 3) uint8 RGB: turned or mirrored it is another picture."""
    corners = np.array([[[230, 30, 40], [40, 200, 60]], [[30, 60, 220], [200, 200, 40]]], np.float32)
    shade = dice.uniform(0.7, 1.0)
    return cv2.resize(corners * shade, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _pil(suffix: str, mode: str = "RGB", **how: Any) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path = stem.with_suffix(suffix)
        Image.fromarray(picture(dice)).convert(mode).save(path, **how)
        return path

    return write


def _rotated(suffix: str) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path, exif = stem.with_suffix(suffix), Image.Exif()
        exif[_ORIENTATION] = dice.randint(1, 8)
        Image.fromarray(picture(dice, 48, 96)).save(path, exif=exif)
        return path

    return write


def _sixteen(suffix: str, *, grey: bool) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path, deep = stem.with_suffix(suffix), picture(dice).astype(np.uint16) * 257
        cv2.imwrite(str(path), deep[..., 0] if grey else deep[..., ::-1])
        return path

    return write


def _animated(suffix: str, **how: Any) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path, frames = stem.with_suffix(suffix), [Image.fromarray(picture(dice)) for _ in range(3)]
        frames[0].save(path, save_all=True, append_images=frames[1:], **how)
        return path

    return write


def _shaped(height: int, width: int) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path = stem.with_suffix(".png")
        Image.fromarray(picture(dice, height, width)).save(path)
        return path

    return write


def _named(suffix: str, form: str) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path = stem.with_suffix(suffix)
        Image.fromarray(picture(dice)).save(path, format=form)
        return path

    return write


def _cut(suffix: str) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path, file = stem.with_suffix(suffix), io.BytesIO()
        Image.fromarray(picture(dice)).save(file, format={".jpg": "JPEG"}.get(suffix, suffix[1:].upper()))
        whole = file.getvalue()
        path.write_bytes(whole[: dice.randrange(len(whole) * 9 // 10)])
        return path

    return write


def _bytes(suffix: str, content: Callable[[Dice], bytes]) -> Callable[[Path, Dice], Path]:
    def write(stem: Path, dice: Dice) -> Path:
        path = stem.with_suffix(suffix)
        path.write_bytes(content(dice))
        return path

    return write


def _floats(stem: Path, dice: Dice) -> Path:
    path = stem.with_suffix(".tiff")
    cv2.imwrite(str(path), picture(dice).astype(np.float32) / 255)
    return path


_PAGE = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>\n"
READABLE: Mapping[str, Callable[[Path, Dice], Path]] = {
    "JPEG": _pil(".jpg", quality=95),
    "JPEG, progressive": _pil(".jpg", quality=95, progressive=True),
    "JPEG, grey": _pil(".jpg", "L", quality=95),
    "JPEG, CMYK": _pil(".jpg", "CMYK", quality=95),
    "JPEG, turned by EXIF": _rotated(".jpg"),
    "PNG, turned by EXIF": _rotated(".png"),
    "WebP, turned by EXIF": _rotated(".webp"),
    "PNG, palette": _pil(".png", "P"),
    "PNG, alpha": _pil(".png", "RGBA"),
    "PNG, grey and alpha": _pil(".png", "LA"),
    "PNG, 1 bit": _pil(".png", "1"),
    "PNG, 16 bits": _sixteen(".png", grey=False),
    "PNG, 16 bits, grey": _sixteen(".png", grey=True),
    "TIFF, 16 bits, grey": _sixteen(".tiff", grey=True),
    "TIFF, pages": _animated(".tiff"),
    "WebP, animated": _animated(".webp", lossless=True),
    "PNG, animated": _animated(".png"),
    "BMP": _pil(".bmp"),
    "PNG named .jpg": _named(".jpg", "PNG"),
    "JPEG named .png": _named(".png", "JPEG"),
    "1 x 1": _shaped(1, 1),
    "20000 x 10": _shaped(10, 20000),
    "10 x 20000": _shaped(20000, 10),
}
DAMAGED: Mapping[str, Callable[[Path, Dice], Path]] = {
    "JPEG, cut short": _cut(".jpg"),
    "PNG, cut short": _cut(".png"),
    "WebP, cut short": _cut(".webp"),
    "HTML named .jpg": _bytes(".jpg", lambda dice: _PAGE),
    "empty": _bytes(".png", lambda dice: b""),
    "noise": _bytes(".jpg", lambda dice: dice.randbytes(1000)),
    "TIFF of floats": _floats,
}

if __name__ == "__main__":
    sys.exit(main())
