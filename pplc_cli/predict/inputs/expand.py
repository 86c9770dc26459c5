"""Expand the arguments of ``pplc predict``: files, folders, globs, lists, archives, videos, URLs, standard input."""

from __future__ import annotations

import codecs
import dataclasses
import enum
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.predict.inputs.source import ADDRESSES, LIST_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES, Source


class Kind(enum.Enum):
    """The kinds of arguments."""

    STDIN = enum.auto()
    URL = enum.auto()
    FOLDER = enum.auto()
    GLOB = enum.auto()
    LIST = enum.auto()
    TAR = enum.auto()
    VIDEO = enum.auto()
    FILE = enum.auto()


@dataclasses.dataclass(frozen=True)
class Argument:
    """A classified argument.

    Attributes:
        name: the argument itself for standard input and URLs, otherwise a path or pattern of this system.
        text: as the user typed it, for messages.
    """

    kind: Kind
    name: str
    text: str


def classify(argument: str) -> Argument:
    """Determine the kind of an argument from its text and from the file at its path."""
    if argument == "-":
        return Argument(Kind.STDIN, argument, argument)
    if argument.startswith(ADDRESSES):
        return Argument(Kind.URL, argument, argument)
    path = user_path(argument)
    if path.is_dir():
        kind = Kind.FOLDER
    elif not path.exists() and glob.has_magic(argument):
        kind = Kind.GLOB
    elif path.name.lower().endswith(LIST_SUFFIXES) and path.is_file():
        kind = Kind.LIST
    else:
        kind = kind_of_item(str(path))
    return Argument(kind, str(path), argument)


def kind_of_item(name: str) -> Kind:
    """The kind of an item of a list or a match of a glob, by its name: URL, TAR, VIDEO or FILE."""
    if name.startswith(ADDRESSES):
        return Kind.URL
    lower = name.lower()
    if lower.endswith(TAR_SUFFIXES):
        return Kind.TAR
    return Kind.VIDEO if lower.endswith(VIDEO_SUFFIXES) else Kind.FILE


def expand(arguments: Iterable[str], *, every: Optional[float] = None) -> Iterator[Source]:
    """Yield the images of arguments, always in the same order; each argument is read when the one before it ends.

    A missing or damaged file yields a source with ``error`` set.

    Args:
        arguments: as a user typed them.
        every: seconds between the frames taken from a video; None: all frames.

    Raises:
        PredictError: a folder or glob without images, or an unreadable list.
    """
    for source in find(arguments):
        kind = kind_of_item(source.name) if source.data is None else Kind.FILE
        if kind is Kind.TAR:
            from pplc_cli.predict.inputs.tar import read_tar

            yield from read_tar(source.name)
        elif kind is Kind.VIDEO:
            from pplc_cli.predict.inputs.video import read_video

            yield from read_video(source.name, every)
        else:
            yield source


def find(arguments: Iterable[str]) -> Iterator[Source]:
    """Like :func:`expand`, but an archive or a video yields one source, unopened."""
    for argument in map(classify, arguments):
        yield from _FINDERS[argument.kind](argument)


def is_text(head: bytes) -> bool:
    """Whether bytes, which may end inside a character, are UTF-8 text."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _itself(argument: Argument) -> Iterator[Source]:
    yield Source(argument.name)


def _folder(argument: Argument) -> Iterator[Source]:
    empty = True
    for name in walk(argument.name):
        if is_image_name(name):
            empty = False
            yield Source(name)
    if empty:
        raise PredictError(f"{argument.text}: the folder holds no images")


def _glob(argument: Argument) -> Iterator[Source]:
    matches = sorted(glob.glob(argument.name, recursive=True))  # noqa: PTH207 - pathlib's refuses absolute patterns
    if not matches:
        raise PredictError(f"{argument.text}: matches no file")
    for match in matches:
        if not os.path.isdir(match):  # noqa: PTH112
            yield Source(match)


def _list_file(argument: Argument) -> Iterator[Source]:
    path = Path(argument.name)
    try:
        with path.open("rb") as file:
            if not is_text(file.read(1 << 16)):
                raise PredictError(f"{argument.text}: expected a list of paths in UTF-8, got other bytes")
            file.seek(0)
            yield from _listed(file, path.parent, argument.text)
    except OSError as error:
        raise PredictError(f"{argument.text}: expected a list of paths in UTF-8: {error}") from None


def _listed(lines: Iterable[bytes], folder: Path, where: str) -> Iterator[Source]:
    """One image per line: a path or URL, optionally followed by a class id as in train_list.txt."""
    empty = True
    for number, raw in enumerate(lines):
        # Bytes that are not UTF-8 become the surrogates that Python's own file functions use for such names.
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


def _standard_input(_: Argument) -> Iterator[Source]:
    """One encoded image, or lines of paths, which are read one by one."""
    stream: BinaryIO = sys.stdin.buffer
    head = stream.read(16)
    if not head:
        raise PredictError("-: standard input is empty; expected an image's bytes or a list of paths")
    head += stream.readline()
    # GIF and WebP are the only image formats whose first bytes may be text.
    like_text = head.startswith((b"GIF87a", b"GIF89a")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if like_text or not is_text(head):
        yield Source("-", head + stream.read())
    else:
        yield from _listed(chain(head.splitlines(), stream), Path(), "-")


_FINDERS: dict[Kind, Callable[[Argument], Iterator[Source]]] = {
    Kind.STDIN: _standard_input,
    Kind.URL: _itself,
    Kind.FOLDER: _folder,
    Kind.GLOB: _glob,
    Kind.LIST: _list_file,
    Kind.TAR: _itself,
    Kind.VIDEO: _itself,
    Kind.FILE: _itself,
}
