"""Expand the arguments of ``pplc predict``: files, folders, globs, lists, archives, videos, URLs, standard input."""

from __future__ import annotations

import dataclasses
import enum
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.data.lists import read_image_list
from pplc_cli.predict.inputs.listed import read_list, read_standard_input
from pplc_cli.predict.inputs.source import (
    ADDRESSES,
    LIST_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIXES,
    VIDEO_SUFFIXES,
    Source,
)

LONGEST_SUFFIX = 10  # characters; what follows another dot is no kind of file
KINDS = 8  # of skipped files, named


class Kind(enum.Enum):
    """The kinds of arguments."""

    STDIN = enum.auto()
    URL = enum.auto()
    FOLDER = enum.auto()
    GLOB = enum.auto()
    LIST = enum.auto()
    TABLE = enum.auto()
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
    elif path.name.lower().endswith(TABLE_SUFFIXES) and path.is_file():
        kind = Kind.TABLE
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


class Skipped:
    """Counts the files of folders and archives that are not images, by their suffix."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a file."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path takes three times as long
        self.suffixes[suffix if len(suffix) <= LONGEST_SUFFIX else ""] += 1

    def __str__(self) -> str:
        """The kinds with their numbers, the most frequent first; "" if nothing was skipped."""
        kinds = [
            tr("{count:,} {suffix}", count=count, suffix=suffix)
            if suffix
            else tr("{count:,} without a suffix", count=count)
            for suffix, count in self.suffixes.most_common()
        ]
        return ", ".join(kinds[:KINDS] + ["..."] * (len(kinds) > KINDS))


def base_of(argument: Argument) -> Optional[str]:
    """The start of the names of an argument's images, up to their subfolders; None: they have none."""
    name = argument.name
    if argument.kind is Kind.GLOB:
        literal = _existing_start(name)
        return literal + re.match(r"([^*?\[]*[/\\])?", name[len(literal) :]).group()  # type: ignore[union-attr]
    if argument.kind is Kind.LIST:
        name = os.path.dirname(name) or "."  # noqa: PTH120
    elif argument.kind not in (Kind.FOLDER, Kind.TAR):
        return None
    return "" if name == "." else os.path.join(name, "")  # noqa: PTH118


def expand(
    arguments: Iterable[str], *, every: Optional[float] = None, skipped: Optional[Skipped] = None
) -> Iterator[Source]:
    """Yield the images of arguments, always in the same order; each argument is read when the one before it ends.

    A missing or damaged file yields a source with ``error`` set.

    Args:
        arguments: as a user typed them.
        every: seconds between the frames taken from a video; None: all frames.
        skipped: counts the files of folders and archives that are not images.

    Raises:
        PredictError: a folder or glob without images, or an unreadable list.
    """
    skipped = skipped or Skipped()
    for source in find(arguments, skipped):
        kind = kind_of_item(source.name) if source.data is None else Kind.FILE
        if kind is Kind.TAR:
            from pplc_cli.predict.inputs.tar import read_tar

            yield from read_tar(source.name, skipped.add)
        elif kind is Kind.VIDEO:
            from pplc_cli.predict.inputs.video import read_video

            yield from read_video(source.name, every)
        else:
            yield source


def find(arguments: Iterable[str], skipped: Optional[Skipped] = None) -> Iterator[Source]:
    """Like :func:`expand`, but an archive or a video yields one source, unopened."""
    skipped = skipped or Skipped()
    for argument in map(classify, arguments):
        if argument.kind is Kind.FOLDER:
            yield from _folder(argument, skipped)
        else:
            yield from _FINDERS[argument.kind](argument)


def matches(pattern: str) -> list[str]:
    """The files and folders of a glob, sorted. Brackets in the names of existing folders are taken literally."""
    literal = _existing_start(pattern)
    start, rest = glob.escape(literal), pattern[len(literal) :]
    found = glob.glob(start + rest, recursive=True)  # noqa: PTH207 - pathlib's refuses absolute patterns
    return sorted(found or glob.glob(start + rest.replace("[", "[[]"), recursive=True))  # noqa: PTH207


def _existing_start(pattern: str) -> str:
    """The longest start of a pattern that is the path of a folder, with its separator."""
    ends = [match.end() for match in re.finditer(r"[/\\]", pattern)]
    return next((pattern[:end] for end in reversed(ends) if os.path.isdir(pattern[:end])), "")  # noqa: PTH112


def _itself(argument: Argument) -> Iterator[Source]:
    yield Source(argument.name)


def _folder(argument: Argument, skipped: Skipped) -> Iterator[Source]:
    empty, others = True, Skipped()
    for name in walk(argument.name):
        if is_image_name(name):
            empty = False
            yield Source(name)
        else:
            others.add(name)
    skipped.suffixes.update(others.suffixes)
    if empty and others.suffixes:
        raise PredictError(
            tr("{folder}: the folder holds no images, only other files: {others}", folder=argument.text, others=others)
        )
    if empty:
        raise PredictError(tr("{folder}: the folder holds no images", folder=argument.text))


def _glob(argument: Argument) -> Iterator[Source]:
    found = matches(argument.name)
    if not found:
        raise PredictError(tr("{pattern}: matches no file", pattern=argument.text))
    for match in found:
        if not os.path.isdir(match):  # noqa: PTH112
            yield Source(match)


_FINDERS: dict[Kind, Callable[[Argument], Iterator[Source]]] = {
    Kind.STDIN: lambda _: read_standard_input(),
    Kind.URL: _itself,
    Kind.GLOB: _glob,
    Kind.LIST: lambda argument: read_list(argument.name, argument.text),
    Kind.TABLE: lambda argument: map(Source, read_image_list(Path(argument.name))),
    Kind.TAR: _itself,
    Kind.VIDEO: _itself,
    Kind.FILE: _itself,
}
