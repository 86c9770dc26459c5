"""What the words after ``pplc predict`` mean: files, folders, globs, lists, archives, videos, addresses, stdin."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.files import user_path
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.predict.inputs.source import ADDRESSES, LIST_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES, Source


def expand(words: Iterable[str], *, every: Optional[float] = None) -> Iterator[Source]:
    """The images that words stand for, in an order that is always the same; each is looked for as it is asked for.

    A word that is nothing becomes a source that will say so; archives and videos become the images in them.

    Args:
        words: as a user typed them.
        every: of videos, seconds from one frame to the next; None: all frames.

    Raises:
        PredictError: a folder or pattern without images, or a list that cannot be read.
    """
    for source in find(words):
        name = source.name.lower()
        if source.data is not None or name.startswith(ADDRESSES):
            yield source
        elif name.endswith(TAR_SUFFIXES):
            from pplc_cli.predict.inputs.tar import read_tar

            yield from read_tar(source.name)
        elif name.endswith(VIDEO_SUFFIXES):
            from pplc_cli.predict.inputs.video import read_video

            yield from read_video(source.name, every)
        else:
            yield source


def find(words: Iterable[str]) -> Iterator[Source]:
    """As :func:`expand`, but archives and videos come as they are."""
    for word in words:
        if word == "-":
            yield from _standard_input()
        elif word.startswith(ADDRESSES):
            yield Source(word)
        else:
            yield from _local(word)


def _local(word: str) -> Iterator[Source]:
    path = user_path(word)
    if path.is_dir():
        empty = True
        for name in walk(str(path)):
            if is_image_name(name):
                empty = False
                yield Source(name)
        if empty:
            raise PredictError(f"{word}: the folder holds no images")
    elif not path.exists() and glob.has_magic(word):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
        if not matches:
            raise PredictError(f"{word}: matches no file")
        for match in matches:
            if not os.path.isdir(match):  # noqa: PTH112
                yield Source(match)
    elif str(path).lower().endswith(LIST_SUFFIXES) and path.is_file():
        yield from _list_file(path, word)
    else:
        yield Source(str(path))


def _list_file(path: Path, word: str) -> Iterator[Source]:
    try:
        with path.open("rb") as file:
            if not is_text(file.read(1 << 16)):
                raise PredictError(f"{word}: expected a list of paths in UTF-8, got other bytes")
            file.seek(0)
            yield from _listed(file, path.parent, word)
    except OSError as error:
        raise PredictError(f"{word}: expected a list of paths in UTF-8: {error}") from None


def is_text(head: bytes) -> bool:
    """Whether bytes, which may end inside a character, are UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _listed(lines: Iterable[bytes], folder: Path, where: str) -> Iterator[Source]:
    """A line an image: a path or address, perhaps followed by a class id as in train_list.txt."""
    empty = True
    for number, raw in enumerate(lines):
        # Names that are no UTF-8 are what the system gives out for them.
        line = raw.decode("utf-8-sig" if number == 0 else "utf-8", "surrogateescape").strip()
        if not line:
            continue
        empty = False
        if line.startswith(ADDRESSES):
            yield Source(line)
            continue
        if os.path.isabs(line) and os.path.exists(line):  # noqa: PTH110, PTH117 - a Path takes three times as long
            yield Source(line)
            continue
        candidates = [line]
        before, _, last = line.rpartition(" ")
        if last.isdecimal() and before:
            candidates.append(before)
        places = (place for c in candidates for place in (folder / user_path(c), user_path(c)))
        found = (place for place in places if os.path.exists(place))  # noqa: PTH110 - pathlib's raises for long names
        yield Source(str(next(found, folder / user_path(candidates[-1]))))
    if empty:
        raise PredictError(f"{where}: lists no image")


def _standard_input() -> Iterator[Source]:
    """An image's bytes, or lines of paths, which may come one by one."""
    stream: BinaryIO = sys.stdin.buffer
    head = stream.read(16)
    if not head:
        raise PredictError("-: nothing came on standard input; expected an image's bytes or a list of paths")
    head += stream.readline()
    # The only kinds of image that may start like text.
    like_text = head.startswith((b"GIF87a", b"GIF89a")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if like_text or not is_text(head):
        yield Source("-", head + stream.read())
    else:
        yield from _listed(chain(head.splitlines(), stream), Path(), "-")
