"""Fonts and shortening for text that Pillow draws."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
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
    """Shorten ``text`` in its middle to ``width`` pixels."""
    return _cut(text, font.getlength, width)


def shortened(text: str, limit: int) -> str:
    """Shorten ``text`` in its middle to the width of ``limit`` Latin letters."""
    return _cut(text, display_width, limit)


def display_width(text: str) -> int:
    """The width of a text in Latin letters; a Chinese character counts as two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _cut(text: str, measure: Callable[[str], float], limit: float) -> str:
    """Cut the middle out of a text that is wider than ``limit``: names often differ only at an end."""
    if measure(text) <= limit:
        return text
    low, high = 0, len(text)
    while low < high:
        kept = (low + high + 1) // 2
        if measure(_without_middle(text, kept)) <= limit:
            low = kept
        else:
            high = kept - 1
    return _without_middle(text, low)


def _without_middle(text: str, kept: int) -> str:
    """Keep ``kept`` characters, half of them at each end."""
    tail = kept // 2
    return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def shortened_names(names: Sequence[str], limit: int) -> list[str]:
    """Shorten each name as :func:`shortened` does, but keep the part in which names differ from each other.

    Args:
        names: different names.
        limit: largest width in Latin letters.
    """
    short = [shortened(name, limit) for name in names]
    for stump in {one for one in short if short.count(one) > 1}:
        places = [place for place, one in enumerate(short) if one == stump]
        alike = [names[place] for place in places]
        common = next((i for i, letters in enumerate(zip(*alike)) if len(set(letters)) > 1), min(map(len, alike)))
        head = alike[0][:4]
        if common - 2 <= len(head) or limit < 12:
            continue
        rests = shortened_names([name[common - 2 :] for name in alike], limit - display_width(head) - 1)
        for place, rest in zip(places, rests):
            short[place] = f"{head}…{rest}"
    return short
