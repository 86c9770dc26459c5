"""Fonts and shortening for text that Pillow draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplc_cli.plots.fonts import find_font, font_file

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

INK = (33, 37, 41)
PALE = (243, 244, 246)


def fonts_by_line(lines: Sequence[str], size: int) -> dict[str, FreeTypeFont]:
    """Choose a font per line: the same for all lines if one font has every character."""
    everything = "".join(lines) + "…"
    if font_file(everything) is not None:
        return dict.fromkeys(lines, find_font(everything, size))
    return {line: find_font(line + "…", size) for line in lines}


def trimmed(text: str, font: FreeTypeFont, width: float) -> str:
    """Shorten ``text`` with an ellipsis to ``width`` pixels; keep a percentage at its end."""
    if font.getlength(text) <= width:
        return text
    head, _, last = text.rpartition(" ")
    if not (head and last.endswith("%") and font.getlength(f"……{last}") <= width):
        head, last = text, ""
    ending = f"… {last}" if last else "…"
    low, high = 0, len(head)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(head[:middle].rstrip() + ending) <= width:
            low = middle
        else:
            high = middle - 1
    return head[:low].rstrip() + ending
