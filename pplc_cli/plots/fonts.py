"""A font on this machine that can draw a text, Chinese, Japanese and Korean class names included."""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Optional

from PIL import ImageFont

# Best first. Regular weights stand before whole families: a variable font may open at its thinnest weight.
_NAMES = {
    "linux": (
        "NotoSansCJK-Regular.*",
        "NotoSansCJK??-Regular.*",
        "NotoSansSC-Regular.*",
        "SourceHanSans*-Regular.*",
        "wqy-microhei.*",
        "wqy-zenhei.*",
        "DroidSansFallback*.ttf",
        "NotoSansCJK*.*",
        "NotoSerifCJK*-Regular.*",
        "uming.ttc",
        "ukai.ttc",
    ),
    "darwin": (
        "PingFang.ttc",
        "Hiragino Sans GB.ttc",
        "ヒラギノ角ゴシック W3.ttc",
        "STHeiti Light.ttc",
        "STHeiti Medium.ttc",
        "AppleSDGothicNeo.ttc",
        "Arial Unicode.ttf",
    ),
    "win32": ("msyh.ttc", "msyh.ttf", "simhei.ttf", "simsun.ttc", "malgun.ttf", "YuGothR.ttc", "meiryo.ttc"),
}


def font_file(text: str) -> Optional[Path]:
    """The first font file with glyphs for every character of ``text``; None where no font has them all.

    The order: the environment variable ``PPLC_FONT``, DejaVu Sans, well-known fonts of the system, the package
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
    # One exotic character must not turn all the Chinese beside it into boxes.
    files = [_dejavu(), *_candidates()]
    return min(files, key=lambda file: len(needed - _covered(file)))


def find_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font for Pillow that draws ``text``, as far as a font of this machine can.

    Args:
        text: what will be drawn.
        size: em size in pixels.
    """
    return _open(best_font_file(text), size)


def missing_glyph_hint(text: str) -> Optional[str]:
    """One line for the user on characters of ``text`` that will come out as boxes; None where all can be drawn."""
    missing = _needed(text) - _covered(best_font_file(text))
    if not missing:
        return None
    shown = [character for character in dict.fromkeys(printable(text)) if ord(character) in missing]
    sample = "".join(shown[:8]) + ("…" if len(shown) > 8 else "")
    return (
        f"no font on this machine can draw '{sample}'; install one with: pip install 'pplc[cjk]' "
        "(or set PPLC_FONT=/path/to/font)"
    )


def printable(text: str) -> str:
    """``text`` as one line that drawing libraries accept: composed, without control characters or lone surrogates."""
    # File systems hand out decomposed names (macOS) and undecodable bytes as surrogates, which FreeType refuses.
    text = unicodedata.normalize("NFC", text)
    return "".join(
        character if character.isprintable() else {"Cc": " ", "Zl": " ", "Zs": " ", "Cs": "?"}.get(category, "")
        for character, category in ((character, unicodedata.category(character)) for character in text)
    )


def _needed(text: str) -> frozenset[int]:
    """The code points that leave ink; spaces and variation selectors do not."""
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
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[Path, ...]:
    """The well-known fonts that are there, best first."""
    home = Path.home()
    if sys.platform == "darwin":
        folders = [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    elif sys.platform == "win32":
        folders = [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
        if "LOCALAPPDATA" in os.environ:
            folders.append(Path(os.environ["LOCALAPPDATA"]) / "Microsoft" / "Windows" / "Fonts")
    else:
        data = Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share"))
        folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", data / "fonts"]
    # One walk for all patterns: a machine may hold thousands of fonts.
    files = sorted(Path(root) / name for folder in folders for root, _, names in os.walk(folder) for name in names)
    found: dict[Path, None] = {}
    for pattern in _NAMES.get(sys.platform, _NAMES["linux"]):
        found.update((file, None) for file in files if file.match(pattern) and file.suffix.lower() in _SUFFIXES)
    return tuple(found)


_SUFFIXES = {".ttf", ".ttc", ".otf", ".otc"}


def _packaged_font() -> Optional[Path]:
    """The font of the package mplfonts; found without importing it, which would change matplotlib's settings."""
    spec = importlib.util.find_spec("mplfonts")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "fonts" / "NotoSansCJKsc-Regular.otf"
        if file.is_file():
            return file
    return None


@lru_cache(maxsize=64)
def _covered(file: Path) -> frozenset[int]:
    """The code points a font file has glyphs for; none where it cannot be read."""
    from fontTools.ttLib import TTFont

    try:
        # Pillow and matplotlib, too, take the first font of a collection.
        with file.open("rb") as stream, TTFont(stream, fontNumber=0, lazy=True) as font:
            covered = frozenset(font.getBestCmap() or ())
        _open(file, 12)  # a font that only fontTools can read is no use
        return covered
    except Exception:  # fontTools raises all kinds on a damaged file, and another font will do
        return frozenset()


@lru_cache(maxsize=64)
def _open(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)
