"""Read text files whose encoding nobody wrote down."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr

# Of Windows in China, Western Europe, Japan, Korea, Taiwan and Russia.
_OLDER = ("gb18030", "cp1252", "cp932", "cp949", "big5", "cp1251")
_MAX_BYTES = 1 << 30
_COMPARED = 200  # lines that decide about an encoding


def read_lines(path: Path, known: Callable[[str], bool]) -> list[str]:
    """Read the lines of a text file in UTF-8, in UTF-16 with a byte order mark, or in an older encoding.

    Most bytes have a meaning in several older encodings. The one is chosen in which the lines name what exists.

    Args:
        path: the file.
        known: whether a line names a file or folder that exists; called with lines that are not ASCII.

    Raises:
        DataError: the file cannot be read or is not text, or its encoding cannot be told.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(tr("{path}: is not a file", path=path))
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(
            tr("{path}: cannot be read: {reason}", path=path, reason=getattr(error, "strerror", None) or error)
        ) from None
    if len(raw) > _MAX_BYTES:
        raise DataError(tr("{path}: is larger than 1 GB; expected a text file", path=path))
    try:
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        return _decode_older(path, raw, known)
    return _lines(path, text)


def _decode_older(path: Path, raw: bytes, known: Callable[[str], bool]) -> list[str]:
    texts = set()
    for encoding in _OLDER:
        try:
            texts.add(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    found = []
    for text in texts:
        lines = _lines(path, text)
        odd = [line for line in lines if not line.isascii()]
        found.append((sum(map(known, odd[:_COMPARED])), lines))
    best = max((hits for hits, _ in found), default=0)
    fitting = [lines for hits, lines in found if hits == best]
    if best == 0 or len(fitting) > 1:
        raise DataError(
            tr(
                "{path}: is not UTF-8 text, and its names do not tell which encoding it has; save it as UTF-8",
                path=path,
            )
        )
    return fitting[0]


def _lines(path: Path, text: str) -> list[str]:
    if "\0" in text:
        raise DataError(tr("{path}: is not text: it contains zero bytes; save it as UTF-8", path=path))
    return re.split(r"\r\n|\r|\n", text)
