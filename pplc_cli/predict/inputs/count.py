"""Count images before they are predicted, if that is possible without decoding them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Optional

from pplc_cli.base.errors import PplcError
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.predict.inputs.expand import Argument, Kind, classify, kind_of_item, matches
from pplc_cli.predict.inputs.source import TAR_SUFFIXES, VIDEO_SUFFIXES
from pplc_cli.predict.inputs.tar import Member

_SHARDS = tuple(suffix.encode() for suffix in (*TAR_SUFFIXES, *VIDEO_SUFFIXES))


def count(arguments: Iterable[str], stop: Event) -> Optional[int]:
    """Count the images of arguments, for the progress bar; wrong arguments raise only in :func:`expand`.

    Returns:
        None if the number cannot be known, or ``stop`` was set.
    """
    total = 0
    try:
        for argument in map(classify, arguments):
            for images in _COUNTERS[argument.kind](argument):
                if images is None or stop.is_set():
                    return None
                total += images
    except (OSError, PplcError, tarfile.TarError):
        return None
    return total


# Each counter yields a number per file, so that ``stop`` is checked often, or None if the number is unknown.


def _one(_: Argument) -> Iterator[Optional[int]]:
    yield 1


def _unknown(_: Argument) -> Iterator[Optional[int]]:
    yield None


def _folder(argument: Argument) -> Iterator[Optional[int]]:
    for name in walk(argument.name):
        yield int(is_image_name(name))


def _glob(argument: Argument) -> Iterator[Optional[int]]:
    for match in matches(argument.name):
        if not os.path.isdir(match):  # noqa: PTH112
            kind = kind_of_item(match)
            yield from _COUNTERS[kind](Argument(kind, match, match))


def _list_file(argument: Argument) -> Iterator[Optional[int]]:
    with Path(argument.name).open("rb") as file:
        for line in file:
            # Opening every archive of a list would take too long.
            yield None if line.strip().lower().endswith(_SHARDS) else int(bool(line.strip()))


def _tar(argument: Argument) -> Iterator[Optional[int]]:
    if not argument.name.lower().endswith(".tar"):
        yield None  # a compressed archive would have to be decompressed
        return
    with tarfile.open(argument.name, "r:", tarinfo=Member) as archive:
        while (member := archive.next()) is not None:  # seeks from header to header
            archive.members.clear()  # type: ignore[attr-defined]
            yield int(is_image_name(member.name))


_COUNTERS: dict[Kind, Callable[[Argument], Iterator[Optional[int]]]] = {
    Kind.STDIN: _unknown,
    Kind.URL: _one,
    Kind.FOLDER: _folder,
    Kind.GLOB: _glob,
    Kind.LIST: _list_file,
    Kind.TABLE: _unknown,
    Kind.TAR: _tar,
    Kind.VIDEO: _unknown,
    Kind.FILE: _one,
}
