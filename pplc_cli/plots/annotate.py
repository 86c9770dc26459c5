"""Draw labels into an image."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.fonts import printable
from pplc_cli.plots.text import PALE, fonts_by_line, trimmed

_LABELLED_WIDTH = 96  # pixels; a label on a narrower image would be illegible


def image_note(path: PathLike, key: str) -> Any:
    """Read what a drawing function noted in the metadata of its image; None if the file is no such image."""
    try:
        with Image.open(path) as image:
            return image.info.get(key)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def jpeg_bytes(image: np.ndarray, quality: int) -> bytes:
    """Encode an image, uint8 RGB (H, W, 3), as JPEG."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def annotate(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Copy an image and draw lines of text on a banner in its top left corner.

    Args:
        image: uint8 RGB, shape (height, width, 3).
        lines: the text, the best label first; none: the copy is unchanged.

    Returns:
        uint8 RGB of the same shape. An image that is too small for text becomes larger: a narrow one is scaled up to a
        width of 96 pixels, and a flat one gets the banner above it.
    """
    lines = [printable(line) for line in lines]
    if not lines:
        return np.array(image)
    canvas = _wide_enough(Image.fromarray(image))
    width, height = canvas.size
    size = max(12, round(min(width, height) / 28))
    while True:
        pad = max(3, size // 3)
        fonts = fonts_by_line(lines, size)
        longest = max(fonts[line].getlength(line) for line in lines)
        if longest <= width - 2 * pad or size <= 11:
            break
        # The width is nearly proportional to the size. Shrink by at least 1, so that the loop ends.
        size = max(11, min(size - 1, int(size * (width - 2 * pad) / longest)))
    texts = [trimmed(line, fonts[line], width - 2 * pad) for line in lines]
    step = max(sum(font.getmetrics()) for font in fonts.values())
    banner = (
        min(width, 2 * pad + math.ceil(max(fonts[line].getlength(text) for line, text in zip(lines, texts)))),
        2 * (pad // 2) + step * len(lines),
    )
    if banner[1] > 0.55 * height:  # most of the image must stay visible
        taller = Image.new("RGB", (width, height + banner[1]), PALE)
        taller.paste(canvas, (0, banner[1]))
        canvas = taller
    behind = canvas.crop((0, 0, *banner))
    behind = Image.blend(behind, Image.new("RGB", banner, (0, 0, 0)), 0.66)
    draw = ImageDraw.Draw(behind)
    for number, (line, text) in enumerate(zip(lines, texts)):
        baseline = pad // 2 + number * step + fonts[line].getmetrics()[0]
        draw.text((pad, baseline), text, fill="white", font=fonts[line], anchor="ls")
    canvas.paste(behind, (0, 0))
    return np.array(canvas)


def _wide_enough(image: Image.Image) -> Image.Image:
    """Scale the image up, and pad it if needed, until it is wide enough for a label."""
    if image.width >= _LABELLED_WIDTH:
        return image.copy()
    # Scaling a narrow tower to this width would give thousands of rows, so it is padded.
    scale = max(1.0, min(_LABELLED_WIDTH / image.width, 4 * _LABELLED_WIDTH / image.height))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (max(_LABELLED_WIDTH, size[0]), size[1]), PALE)
    canvas.paste(image.resize(size, Image.Resampling.BICUBIC), (0, 0))
    return canvas
