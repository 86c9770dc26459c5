"""Images in a grid with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from pplc_cli.base.storage.files import PathLike, atomic_file
from pplc_cli.plots.figure import picture
from pplc_cli.plots.fonts import find_font, printable
from pplc_cli.plots.text import INK, PALE, fonts_by_line, trimmed


@picture
def contact_sheet(
    path: PathLike,
    tiles: Sequence[tuple[np.ndarray, Sequence[str]]],
    columns: int = 6,
    side: int = 176,
    title: str = "",
) -> None:
    """Write a sheet of square tiles with captions below them.

    Args:
        path: the image to write; its suffix chooses the format.
        tiles: pairs (image, caption lines); images are uint8 RGB of shape (height, width, 3).
        columns: largest number of tiles in a row.
        side: width and height of a tile in pixels.
        title: a line above all tiles.
    """
    gap, size = max(6, side // 12), max(11, side // 13)
    columns = max(1, min(columns, len(tiles)))
    captions = [[printable(line) for line in lines] for _, lines in tiles]
    fonts = fonts_by_line([line for lines in captions for line in lines], size)
    step = max((sum(font.getmetrics()) for font in fonts.values()), default=0) + 1
    # The height of a row depends on its own longest caption.
    heights = [
        side + (5 + step * most if most else 0)
        for start in range(0, len(tiles), columns)
        for most in [max(len(lines) for lines in captions[start : start + columns])]
    ]
    width = gap + columns * (side + gap)
    title = printable(title)
    title_font = find_font(title + "…", round(size * 1.5))
    head = gap
    if title:
        width = max(width, min(2 * gap + math.ceil(title_font.getlength(title)), gap + 6 * (side + gap)))
        head = 2 * gap + sum(title_font.getmetrics())
    height = head + sum(heights) + gap * max(1, len(heights)) + (gap // 2) * max(0, len(heights) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), trimmed(title, title_font, width - 2 * gap), fill=INK, font=title_font)
    top = head
    for row, row_height in enumerate(heights):
        for column in range(columns):
            index = row * columns + column
            if index == len(tiles):
                break
            left = gap + column * (side + gap)
            sheet.paste(_letterboxed(tiles[index][0], side), (left, top))
            for number, line in enumerate(captions[index]):
                draw.text(
                    (left, top + side + 5 + number * step + fonts[line].getmetrics()[0]),
                    trimmed(line, fonts[line], side),
                    # The first line is the name, the others are details.
                    fill=INK if number == 0 else (90, 97, 105),
                    font=fonts[line],
                    anchor="ls",
                )
        top += row_height + gap + gap // 2
    with atomic_file(path) as temporary:
        sheet.save(temporary)


def _letterboxed(image: np.ndarray, side: int) -> Image.Image:
    """Scale the whole image into a square, with pale bars beside it."""
    original = Image.fromarray(image)
    scale = side / max(original.size)
    size = (max(1, round(original.width * scale)), max(1, round(original.height * scale)))
    scaled = original.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (side, side), PALE)
    tile.paste(scaled, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile
