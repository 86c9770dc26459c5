"""How many images there will be, where that can be told without opening them."""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Optional

from pplc_cli.base.errors import PplcError
from pplc_cli.base.files import user_path
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.predict.inputs.source import ADDRESSES, LIST_SUFFIXES, TAR_SUFFIXES, VIDEO_SUFFIXES


def count(words: Iterable[str], stop: Event) -> Optional[int]:
    """How many images words stand for; None: it cannot be told, or ``stop`` was set.

    It is for the time left only: what a word turns out to be is told by :func:`pplc_cli.predict.inputs.expand.expand`.
    """
    total = 0
    try:
        for word in words:
            for step in _ones(word):
                if step is None or stop.is_set():
                    return None
                total += step
    except (OSError, PplcError, tarfile.TarError):
        return None
    return total


def _ones(word: str) -> Iterator[Optional[int]]:
    """A number for each file; None for what nobody knows."""
    path = user_path(word)
    lower = word.lower()
    if word == "-":
        yield None
    elif word.startswith(ADDRESSES):
        yield 1
    elif path.is_dir():
        for name in walk(str(path)):
            yield int(is_image_name(name))
    elif not path.exists() and glob.has_magic(word):
        for match in glob.iglob(str(path), recursive=True):  # noqa: PTH207 - absolute patterns too
            yield from _ones(match) if not Path(match).is_dir() else ()
    elif lower.endswith(LIST_SUFFIXES) and path.is_file():
        with path.open("rb") as file:
            for line in file:
                # A list of archives or videos is not worth looking into.
                shard = line.strip().lower().endswith(tuple(s.encode() for s in (*TAR_SUFFIXES, *VIDEO_SUFFIXES)))
                yield None if shard else int(bool(line.strip()))
    elif lower.endswith(".tar"):
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:  # from header to header
                archive.members.clear()  # type: ignore[attr-defined]
                yield int(is_image_name(member.name))
    else:
        yield None if lower.endswith((*TAR_SUFFIXES, *VIDEO_SUFFIXES)) else 1
