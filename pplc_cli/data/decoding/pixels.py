"""From a decoded Pillow image to upright RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Optional

import cv2
import numpy as np
from PIL import Image

_BAND = 1 << 22  # pixels converted at once: Pillow and NumPy copy each several times
_STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # colours multiplied by alpha

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.flip(pixels, -1),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def is_on_its_side(image: Image.Image) -> bool:
    """Whether EXIF exchanges width and height."""
    return _orientation(image) >= 5


def upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Turn the pixels as the image's EXIF says."""
    turn = _TURNS.get(_orientation(image))
    return pixels if turn is None else turn(pixels)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; damaged or impossible values count as 1, as in OpenCV."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF raises as many kinds as decoders do
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a loaded image of any mode to uint8 RGB, shape (H, W, 3)."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    factor = _factor(image)
    for top, band in _bands(image):
        rows = pixels[top : top + band.height]
        if factor is None:
            rows[:] = np.asarray(_rgb(band))
        else:
            values = np.nan_to_num(np.asarray(band) * np.float32(factor))
            rows[:] = np.clip(values, 0, 255).astype(np.uint8)[:, :, None]
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Horizontal bands of the image, with their first rows."""
    width, height = image.size
    rows = max(1, _BAND // max(1, width))
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _factor(image: Image.Image) -> Optional[float]:
    """By what to multiply grey values of more than 8 bits; None for other images."""
    if image.mode.startswith("I;16"):
        return 1 / 256
    if image.mode not in ("I", "F"):
        return None
    bands = (np.asarray(band) for _, band in _bands(image))
    largest = max(values[np.isfinite(values)].max(initial=0) for values in bands)
    if image.mode == "F" and largest <= 1:
        return 255
    return 1 / 256 if largest > 255 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _STRAIGHT:
        image = image.convert(_STRAIGHT[image.mode])
    return image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB")
