"""Files below a folder, of which there may be millions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .data.images import IGNORED_FILES, is_image_name
from .errors import DataError


def walk(folder: str) -> Iterator[str]:
    """All files below a folder in sorted order, without hidden ones and those of file managers.

    Only the names of one folder, and of those that it is in, are held at a time.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _walk(folder, ())


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder that this one is in
        return
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a Path a file would take ten times the memory
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror or error}") from None
    for name in names:
        if name.startswith(".") or name.lower() in IGNORED_FILES:
            continue
        path = name if folder == "." else os.path.join(folder, name)  # noqa: PTH118
        # A folder named x.jpg is given out like a file, to be refused by its name.
        if not is_image_name(name) and os.path.isdir(path):  # noqa: PTH112
            yield from _walk(path, (*above, real))
        else:
            yield path
