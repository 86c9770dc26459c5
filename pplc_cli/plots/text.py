"""Images of a run: contact sheets, labelled photographs, training curves and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pplc_cli.plots.fonts import find_font, font_file

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_INK = (33, 37, 41)
_PALE = (243, 244, 246)


def _fonts(lines: Sequence[str], size: int) -> dict[str, FreeTypeFont]:
    """A font for each line: one for all where one has every character."""
    everything = "".join(lines) + "…"
    if font_file(everything) is not None:
        return dict.fromkeys(lines, find_font(everything, size))
    return {line: find_font(line + "…", size) for line in lines}


def _trimmed(text: str, font: FreeTypeFont, width: float) -> str:
    """``text`` shortened with an ellipsis to ``width`` pixels; a percentage at its end is kept."""
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
