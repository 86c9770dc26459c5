"""Lists of images, in files and on standard input."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.predict.inputs.source import ADDRESSES, MAX_ENCODED, Source

ENCODINGS = ("utf-8", "gb18030")  # of lists; the second one is that of Chinese Windows
LONGEST_LINE = 1 << 16  # bytes; several times the longest path


def read_list(name: str, text: str) -> Iterator[Source]:
    """Yield the images of a list, which is read line by line.

    Args:
        name: the file's path.
        text: as the user typed it, for messages.

    Raises:
        PredictError: it cannot be read, is no text, or is empty.
    """
    path = Path(name)
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(1 << 16):
                raise PredictError(
                    tr("{file}: expected a list of paths in UTF-8 or GB18030, got other bytes", file=text)
                )
            file.seek(0)
            yield from _listed(_lines(file), path.parent, text)
    except OSError as error:
        raise PredictError(
            tr("{file}: the list cannot be read: {reason}", file=text, reason=error.strerror or error)
        ) from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(LONGEST_LINE), b"")


def _listed(lines: Iterable[bytes], folder: Path, where: str) -> Iterator[Source]:
    """One image per line: a path or URL, optionally followed by a TAB or a space and a class id, as in training."""
    empty = True
    for number, raw in enumerate(lines):
        line = (raw[3:] if number == 0 and raw.startswith(codecs.BOM_UTF8) else raw).strip()
        if line:
            empty = False
            yield Source(_listed_name(line, folder))
    if empty:
        raise PredictError(tr("{where}: lists no image", where=where))


def _listed_name(line: bytes, folder: Path) -> str:
    """The path or address that a line means: of its possible readings, the first that exists."""
    first = None
    for text in _decoded(line):
        if text.startswith(ADDRESSES):
            return text
        if os.path.isabs(text) and os.path.exists(text):  # noqa: PTH110, PTH117 - a Path takes three times as long
            return text
        names = [text]
        for mark in ("\t", " "):
            before, _, last = text.rpartition(mark)
            if last.isdecimal() and before:
                names.append(before.strip())
        places = (place for name in names for place in (folder / user_path(name), user_path(name)))
        found = next((place for place in places if os.path.exists(place)), None)  # noqa: PTH110 - pathlib's raises
        if found is not None:
            return str(found)
        first = first or str(folder / user_path(names[-1]))
    return first or ""


def _decoded(line: bytes) -> Iterator[str]:
    """What a line may mean: bytes may be valid in several encodings, or an odd name that Python's functions escape."""
    for encoding in ENCODINGS[: 1 if line.isascii() else None]:
        with contextlib.suppress(UnicodeDecodeError):
            yield line.decode(encoding)
    if not line.isascii():
        yield line.decode("utf-8", "surrogateescape")


def read_standard_input() -> Iterator[Source]:
    """Yield one encoded image, or the images of lines of paths, which are read one by one.

    Raises:
        PredictError: it is closed or empty.
    """
    if sys.stdin is None:
        raise PredictError(tr("-: standard input is closed; expected an image's bytes or a list of paths"))
    stream: BinaryIO = sys.stdin.buffer
    head = stream.read(16)
    if not head:
        raise PredictError(tr("-: standard input is empty; expected an image's bytes or a list of paths"))
    head += stream.readline(LONGEST_LINE)
    # GIF and WebP are the only image formats whose first bytes may be text.
    like_text = head.startswith((b"GIF87a", b"GIF89a")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if not like_text and _is_text(head):
        yield from _listed(chain(head.splitlines(), _lines(stream)), Path(), "-")
        return
    data = head + stream.read(MAX_ENCODED + 1 - len(head))
    if len(data) > MAX_ENCODED:
        yield Source("-", error=tr("is larger than {limit} MB", limit=MAX_ENCODED >> 20))
    else:
        yield Source("-", data)


def _is_text(head: bytes) -> bool:
    """Whether bytes, which may end inside a character, are text in one of the encodings of lists."""
    if b"\0" in head:
        return False
    for encoding in ENCODINGS:
        with contextlib.suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(head)
            return True
    return False
