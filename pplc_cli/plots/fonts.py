"""Find a font on this machine for the characters of a text, including Chinese, Japanese and Korean ones."""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Optional

from PIL import ImageFont

from pplc_cli.base.language.messages import tr
from pplc_cli.plots.matplotlib import load_matplotlib

# Files with Chinese, Japanese and Korean glyphs, best first. Regular weights come before whole families: a variable
# font may open at its thinnest weight.
_CJK_FILES = (
    # Linux
    "NotoSansCJK-Regular.*", "NotoSansCJK??-Regular.*", "NotoSansSC-Regular.*", "SourceHanSans*-Regular.*",
    "wqy-microhei.*", "wqy-zenhei.*", "DroidSansFallback*.ttf", "NotoSansCJK*.*", "NotoSerifCJK*-Regular.*",
    "uming.ttc", "ukai.ttc",
    # macOS
    "PingFang.ttc", "Hiragino Sans GB.ttc", "ヒラギノ角ゴシック W3.ttc", "STHeiti Light.ttc", "STHeiti Medium.ttc",
    "AppleSDGothicNeo.ttc", "Arial Unicode.ttf",
    # Windows
    "msyh.ttc", "msyh.ttf", "simhei.ttf", "simsun.ttc", "malgun.ttf", "YuGothR.ttc", "meiryo.ttc",
)  # fmt: skip


def font_file(text: str) -> Optional[Path]:
    """The first font file with glyphs for every character of ``text``; None if no font has them all.

    Searched in this order: the environment variable ``PPLC_FONT``, DejaVu Sans, the system's CJK fonts, the package
    mplfonts.
    """
    needed = _needed(text)
    return next((file for file in _candidates() if needed <= _covered(file)), None)


def best_font_file(text: str) -> Path:
    """:func:`font_file`, or the font that lacks the fewest characters of ``text``: DejaVu Sans among equals."""
    needed = _needed(text)
    found = font_file(text)
    if found is not None:
        return found
    # One rare character must not turn the Chinese text beside it into boxes.
    files = [_dejavu(), *_candidates()]
    return min(files, key=lambda file: len(needed - _covered(file)))


def find_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Open the font for Pillow that has the most characters of ``text``.

    Args:
        text: the text to draw.
        size: em size in pixels.
    """
    return _open(best_font_file(text), size)


def missing_glyph_hint(text: str) -> Optional[str]:
    """Name the characters of ``text`` that no font has and that will be drawn as boxes; None if there are none."""
    missing = _needed(text) - _covered(best_font_file(text))
    if not missing:
        return None
    shown = [character for character in dict.fromkeys(printable(text)) if ord(character) in missing]
    sample = "".join(shown[:8]) + ("…" if len(shown) > 8 else "")
    return tr(
        "no font on this machine can draw '{characters}'; install one with: pip install 'pplc[cjk]' "
        "(or set PPLC_FONT=/path/to/font)",
        characters=sample,
    )


def printable(text: str) -> str:
    """Turn ``text`` into one line that drawing libraries accept: composed, no control characters or lone surrogates."""
    # File systems hand out decomposed names (macOS) and undecodable bytes as surrogates, which FreeType refuses.
    text = unicodedata.normalize("NFC", text)
    return "".join(
        character if character.isprintable() else {"Cc": " ", "Zl": " ", "Zs": " ", "Cs": "?"}.get(category, "")
        for character, category in ((character, unicodedata.category(character)) for character in text)
    )


def _needed(text: str) -> frozenset[int]:
    """The code points that need a glyph: all but spaces and variation selectors."""
    return frozenset(
        ord(character) for character in printable(text) if character != " " and not 0xFE00 <= ord(character) <= 0xFE0F
    )


def _candidates() -> Iterator[Path]:
    chosen = os.environ.get("PPLC_FONT")
    if chosen:
        yield Path(chosen).expanduser()
    yield _dejavu()
    yield from _system_fonts()
    packaged = _packaged_font()
    if packaged is not None:
        yield packaged


@lru_cache(maxsize=1)
def _dejavu() -> Path:
    """DejaVu Sans, which comes with Matplotlib; Matplotlib itself need not load."""
    spec = importlib.util.find_spec("matplotlib")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(*folders[:1], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[Path, ...]:
    """The known CJK fonts of this machine, best first."""
    try:
        files = sorted(map(Path, load_matplotlib().font_manager.findSystemFonts()))
    except Exception:  # Matplotlib refuses to load, for example with a damaged settings file
        return ()
    found = (file for pattern in _CJK_FILES for file in files if file.match(pattern))
    return tuple(dict.fromkeys(found))


def _packaged_font() -> Optional[Path]:
    """The font of the package mplfonts. Importing the package would change Matplotlib's settings."""
    spec = importlib.util.find_spec("mplfonts")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "fonts" / "NotoSansCJKsc-Regular.otf"
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=64)
def _covered(file: Path) -> frozenset[int]:
    """The code points that a font file has glyphs for; empty if it cannot be read."""
    from fontTools.ttLib import TTFont

    try:
        # Like Pillow and Matplotlib, take the first font of a collection.
        with file.open("rb") as stream, TTFont(stream, fontNumber=0, lazy=True) as font:
            covered = frozenset(font.getBestCmap() or ())
        _open(file, 12)  # raises for fonts that fontTools reads but Pillow does not
        return covered
    except Exception:  # fontTools raises many kinds on a damaged file; another font is used instead
        return frozenset()


@lru_cache(maxsize=64)
def _open(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)
