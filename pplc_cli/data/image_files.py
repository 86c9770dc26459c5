"""Which files are images, and walking folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from pplc_cli.base.errors import DataError, ImageError

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP", ".dib": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".gif": "GIF",
}  # fmt: skip
IGNORED_FILES = {"thumbs.db", "desktop.ini"}  # written by file managers, never anybody's data
MAX_BYTES = 2 << 30  # more than MAX_PIXELS need in any format


def is_image_name(name: Union[str, Path]) -> bool:
    """Whether the suffix, in any case, is one of an image."""
    return Path(name).suffix.lower() in SUFFIXES


def list_files(folder: Path) -> Iterator[Path]:
    """What :func:`walk` gives, as paths."""
    return map(Path, walk(str(folder)))


def walk(folder: str) -> Iterator[str]:
    """All files below a folder in sorted order, without hidden ones and those of file managers.

    There may be millions: only the names of one folder, and of those that it is in, are held at a time.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _walk(folder, ())


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder that this one is in
        return
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a Path takes ten times a text's memory
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


def read_bytes(path: Union[str, Path]) -> bytes:
    """The bytes of a regular file.

    Raises:
        ImageError: it is missing, empty, a folder, a pipe, or cannot be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path takes as long to make as a small file to read
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("is a folder, expected an image")
        if not stat.S_ISREG(mode):
            raise ImageError("is no regular file")  # reading a pipe would wait for ever
        if status.st_size > MAX_BYTES:
            raise ImageError(f"is {status.st_size >> 30} GB large, expected at most {MAX_BYTES >> 30}")
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            data = file.readall()
    except MemoryError:
        raise ImageError("is too large for this machine's memory") from None
    except FileNotFoundError:
        reason = "is a link to a file that is not there" if Path(path).is_symlink() else "no such file"
        raise ImageError(reason) from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # an embedded zero byte
        raise ImageError(f"cannot be read: {error}") from None
    if not data:
        raise ImageError("is empty (0 bytes)")
    return data
