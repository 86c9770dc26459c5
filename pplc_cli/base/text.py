"""Text from file names, labels and servers, made safe for UTF-8 files, terminals, CSV tables and file names."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

# Control characters, formatting characters (among them those that reverse the direction of text), surrogates, line and
# paragraph separators: terminals act on them or hide them. The two joiners are parts of emoji and of Indic words.
_ACTIVE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
NAME_BYTES = 200  # of the 255 that file systems allow: numbers, suffixes and the names of temporary files need the rest


def plain(text: str) -> str:
    """Escape the undecodable bytes of a file name, and zero bytes, so that every reader of UTF-8 takes the text."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """Escape what a terminal acts on or hides, line ends too: the result is one line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def visible_lines(text: str) -> str:
    """Like :func:`visible`, but line feeds stay: for messages of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii") if _is_active(character) else character


def _is_active(character: str) -> bool:
    return unicodedata.category(character) in _ACTIVE and character not in _JOINERS


def csv_line(values: Iterable[Any]) -> str:
    """A CSV record with its line end; texts are :func:`guarded`, None is an empty cell, floats have 6 decimals.

    Lists become JSON, and truth values true and false.
    """
    return ",".join(map(_cell, values)) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = guarded(value)
    elif isinstance(value, (bool, list)):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = f"{value:.6f}" if isinstance(value, float) else str(value)
    # Not csv.writer: before Python 3.13 it leaves carriage returns unquoted if lines end with "\n".
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def guarded(text: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula, as OWASP advises.

    Such a cell begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end. :func:`unguarded` removes the apostrophe.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text of a :func:`guarded` cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def file_name(text: str) -> str:
    """Turn any text into the name of a file or folder that is valid on every system, at most 200 bytes long.

    Separators, characters that Windows refuses and those that terminals act on become ``_``; the names of Windows'
    devices, hidden names, ``.`` and ``..`` get a ``_`` in front.
    """
    kept = "".join("_" if _is_active(character) else character for character in text)
    name = _NOT_IN_NAMES.sub("_", kept).strip(" ")
    name = name.encode("utf-8")[:NAME_BYTES].decode("utf-8", "ignore").rstrip(" .")
    return f"_{name}" if not name or name.startswith((".", "-")) or _DEVICES.match(name) else name


def file_names(texts: Sequence[str]) -> list[str]:
    """:func:`file_name` of each text; names that would be the same on some system are numbered."""
    taken: set[str] = set()
    return [unused(file_name(text), taken) for text in texts]


def unused(name: str, taken: set[str]) -> str:
    """Return ``name``, or ``name_2`` and so on if the folder has it already, and add it to ``taken``.

    Args:
        name: a file's name without its suffix.
        taken: names in lower case and composed, since some systems do not tell them apart otherwise.
    """
    number, candidate = 1, name
    while (key := unicodedata.normalize("NFC", candidate).casefold()) in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(key)
    return candidate
