"""What the words after ``pplc predict`` mean: files, folders, globs, lists, addresses, standard input."""

from __future__ import annotations

import dataclasses
import glob
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

from .data.images import FORMATS, is_image_name, list_files, read_bytes
from .errors import DownloadError, ImageError, PredictError
from .files import user_path

MAX_DOWNLOAD = 200 << 20
LIST_SUFFIXES = {".txt", ".list", ".lst"}


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture to predict.

    Attributes:
        name: what the answer is printed under.
        data: its bytes where they are at hand, else they are read from the name.
    """

    name: str
    data: Optional[bytes] = None

    def read(self) -> bytes:
        """The bytes of the file or address.

        Raises:
            ImageError: they cannot be had.
        """
        if self.data is not None:
            return self.data
        if self.name.startswith(("http://", "https://")):
            from .download import read_url

            try:
                return read_url(self.name, MAX_DOWNLOAD)
            except DownloadError as error:
                raise ImageError(str(error)) from None
        return read_bytes(Path(self.name))


def expand(words: Iterable[str]) -> Iterator[Source]:
    """The pictures that words stand for, in order; a word that is nothing becomes a source that will say so.

    Raises:
        PredictError: a folder or pattern without pictures, or a list that cannot be read.
    """
    for word in words:
        if word == "-":
            yield from _standard_input()
        elif word.startswith(("http://", "https://")):
            yield Source(word)
        else:
            yield from _local(word)


def _local(word: str) -> Iterator[Source]:
    path = user_path(word)
    if path.is_dir():
        files = list(list_files(path))
        pictures = [file for file in files if is_image_name(file)]
        if not pictures:
            raise PredictError(f"{word}: the folder holds no pictures")
        yield from (Source(str(file)) for file in pictures)
    elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise PredictError(f"{word}: expected a list of paths in UTF-8: {error}") from None
        yield from _listed(text, path.parent, word)
    elif not path.exists() and glob.has_magic(word):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
        if not matches:
            raise PredictError(f"{word}: matches no file")
        for match in matches:
            if Path(match).is_file():
                yield Source(match)
    else:
        yield Source(str(path))


def _listed(text: str, folder: Path, where: str) -> Iterator[Source]:
    """A line a picture: a path or address, perhaps followed by a class id as in train_list.txt."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise PredictError(f"{where}: lists no picture")
    for line in lines:
        if line.startswith(("http://", "https://")):
            yield Source(line)
            continue
        candidates = [line]
        before, _, last = line.rpartition(" ")
        if last.isdecimal() and before:
            candidates.append(before)
        found = (p for c in candidates for p in (folder / user_path(c), user_path(c)) if p.exists())
        yield Source(str(next(found, folder / user_path(candidates[-1]))))


def _standard_input() -> Iterator[Source]:
    """A picture's bytes, or lines of paths."""
    data = sys.stdin.buffer.read()
    if not data:
        raise PredictError("-: nothing came on standard input; expected a picture's bytes or a list of paths")
    from PIL import Image

    try:
        Image.open(io.BytesIO(data), formats=FORMATS)
        is_picture = True
    except Exception:
        is_picture = False
    text = None
    if not is_picture:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = None
    if text is None or "\0" in text:
        yield Source("-", data)
    else:
        yield from _listed(text, Path(), "-")
