"""Recognise image files by name, walk folders, read files, and find copies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional, Union

from pplc_cli.base.errors import DataError, ImageError, ImageMemoryError
from pplc_cli.base.language.messages import tr

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP", ".dib": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".gif": "GIF", ".heic": "HEIF", ".heif": "HEIF", ".avif": "AVIF",
}  # fmt: skip
IGNORED_FILES = {"thumbs.db", "desktop.ini"}  # written by file managers
MAX_BYTES = 2 << 30  # more than MAX_PIXELS need in any format


def is_image_name(name: Union[str, Path]) -> bool:
    """Whether the name has the suffix of a supported image format, in upper or lower case."""
    return Path(name).suffix.lower() in SUFFIXES


def list_files(folder: Path, within: Optional[Path] = None) -> Iterator[Path]:
    """The files of :func:`walk` as paths."""
    return map(Path, walk(str(folder), None if within is None else str(within)))


def walk(folder: str, within: Optional[str] = None) -> Iterator[str]:
    """Yield all files below a folder in sorted order, except hidden ones and those of file managers.

    Memory holds the names of the current folder and its parents only, since there may be millions of files. Links back
    to a parent folder, up to ``within``, are not followed.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _walk(folder, (os.path.realpath(within),) if within else ())


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a parent folder
        return
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a Path takes ten times the memory of a string
    except OSError as error:
        raise DataError(
            tr("{folder}: the folder cannot be read: {reason}", folder=folder, reason=error.strerror or error)
        ) from None
    for name in names:
        if name.startswith(".") or name.lower() in IGNORED_FILES:
            continue
        path = name if folder == "." else os.path.join(folder, name)  # noqa: PTH118
        # A folder named x.jpg is yielded like a file, so that an error names it.
        if not is_image_name(name) and os.path.isdir(path):  # noqa: PTH112
            yield from _walk(path, (*above, real))
        else:
            yield path


def read_bytes(path: Union[str, Path]) -> bytes:
    """Read a regular file.

    Raises:
        ImageError: it is missing, empty, a folder, a pipe, or cannot be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - building a Path takes as long as reading a small file
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(tr("is a folder, not an image"))
        if not stat.S_ISREG(mode):
            raise ImageError(tr("is not a regular file"))  # reading a pipe would block forever
        if status.st_size > MAX_BYTES:
            raise ImageError(
                tr(
                    "is too large: {size} GB; the limit is {limit} GB",
                    size=status.st_size >> 30,
                    limit=MAX_BYTES >> 30,
                )
            )
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            data = file.readall()
    except MemoryError:
        raise ImageMemoryError(tr("is too large for this machine's memory")) from None
    except FileNotFoundError:
        reason = tr("is a link to a missing file") if Path(path).is_symlink() else tr("does not exist")
        raise ImageError(reason) from None
    except OSError as error:
        raise ImageError(tr("cannot be read: {reason}", reason=error.strerror or error)) from None
    except ValueError as error:  # an embedded zero byte
        raise ImageError(tr("cannot be read: {reason}", reason=error)) from None
    if not data:
        raise ImageError(tr("is empty (0 bytes)"))
    return data


def find_copies(files: Iterable[Path], others: Iterable[Path]) -> set[Path]:
    """Return the files whose bytes equal those of one of the others; unreadable files never match."""
    by_size: dict[int, list[Path]] = {}
    for other in others:
        with contextlib.suppress(OSError):
            by_size.setdefault(other.stat().st_size, []).append(other)
    digests: dict[int, set[bytes]] = {}
    found = set()
    for file in files:
        with contextlib.suppress(OSError):
            size = file.stat().st_size
            if size not in by_size:  # few files share a size, so few are read
                continue
            if size not in digests:
                digests[size] = {hashlib.sha256(path.read_bytes()).digest() for path in by_size[size]}
            if hashlib.sha256(file.read_bytes()).digest() in digests[size]:
                found.add(file)
    return found
