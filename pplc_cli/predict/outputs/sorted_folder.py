"""Sort image files into a folder per class, as copies or links; the originals stay as they are."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, atomic_file, user_path
from pplc_cli.base.text import file_names
from pplc_cli.predict.confidence import UNKNOWN
from pplc_cli.predict.inputs.expand import Kind, classify
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.prediction import Prediction

UNSURE = "unsure"


class SortedFolder:
    """A folder with a subfolder per class. Sorting an image again changes nothing, so a stopped run can be repeated.

    Attributes:
        folder: the folder.
        counts: images by subfolder, those that were there already included.
        left: images that are not files: members of archives, frames of videos, downloads.
    """

    def __init__(
        self, folder: PathLike, labels: Iterable[str], *, link: bool = False, min_score: Optional[float] = None
    ) -> None:
        """
        Args:
            folder: created when the first image is sorted.
            labels: the class names; the names of their subfolders are valid on every system.
            link: make hard links, or symbolic links where the file system has no hard ones, instead of copies.
            min_score: images with a lower score go to ``unsure``. Unknown images go to ``unknown``.
        """
        self.folder, self._link, self._min_score = user_path(folder), link, min_score
        texts = [*labels, UNSURE, UNKNOWN]
        *names, self._unsure, self._unknown = file_names(texts)
        self._names = dict(zip(texts, names))
        self._real = self.folder.resolve()
        self.counts: Counter[str] = Counter()
        self.left = 0

    def check(self, arguments: Iterable[str]) -> None:
        """Check the arguments of the images.

        Raises:
            PredictError: an argument lies in the folder itself, or the folder is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise PredictError(tr("{folder} is a file; expected a folder to sort into", folder=self.folder))
        for argument in map(classify, arguments):
            if argument.kind in (Kind.FOLDER, Kind.GLOB, Kind.FILE) and self._holds(argument.name, itself=True):
                raise PredictError(
                    tr(
                        "{path} lies in {folder}, the folder to sort into; name another one",
                        path=argument.text,
                        folder=self.folder,
                    )
                )

    def outside(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Leave out what was sorted already, if the folder lies within the folder of the images."""
        return (source for source in sources if not self._holds(source.name))

    def add(self, prediction: Prediction) -> None:
        """Sort an image; unusable ones stay where they are.

        Raises:
            PplcError: the copy or link cannot be made.
        """
        if prediction.label is None:
            return
        source = Path(prediction.path)
        if not _is_file(source):
            self.left += 1
            return
        unsure = self._min_score is not None and (prediction.score or 0) < self._min_score
        name = self._unknown if prediction.unknown else self._unsure if unsure else self._names[prediction.label]
        self._place(source, self.folder / name)
        self.counts[name] += 1

    def _place(self, source: Path, folder: Path) -> None:
        """Copy or link a file into a folder, unless the same content is there; other files of this name stay."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                target = folder / (source.name if number == 1 else f"{source.stem}_{number}{source.suffix}")
                try:
                    self._make(source, target)
                    return
                except FileExistsError:
                    if _same(source, target):
                        return
        except OSError as error:
            raise PplcError(
                tr(
                    "cannot sort {source} into {folder}: {reason}",
                    source=source,
                    folder=folder,
                    reason=error.strerror or error,
                )
            ) from error

    def _make(self, source: Path, target: Path) -> None:
        if os.path.lexists(target):
            raise FileExistsError
        if self._link:
            original = source.resolve()
            try:
                os.link(original, target)
            except FileExistsError:
                raise
            except OSError:  # another drive, or a file system without hard links
                target.symlink_to(original)
        else:
            with atomic_file(target) as temporary:
                shutil.copy2(source, temporary)

    def _holds(self, name: str, *, itself: bool = False) -> bool:
        path = Path(os.path.realpath(name))
        return self._real in path.parents or (itself and path == self._real)


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.is_file()
    return False


def _same(one: Path, two: Path) -> bool:
    """Whether two files are one, or have the same content."""
    return two.is_file() and (one.samefile(two) or filecmp.cmp(one, two, shallow=False))
