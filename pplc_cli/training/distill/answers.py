"""A teacher's predictions, stored on disk."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.files import atomic_file
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.data.loader import Loader
from pplc_cli.training.distill.teacher import Teacher


class TeacherCache:
    """What a teacher says of every image in several augmented views, computed once and kept on disk.

    Attributes:
        teacher: who says it.
        views: augmented versions of each image; epoch e takes number e modulo this.
        size: height and width of the images.
        mean, deviation: of the features over all images, float32 (features,); None where there are none.
    """

    def __init__(
        self,
        teacher: Teacher,
        loader: Loader,
        views: int,
        folder: Path,
        progress: ProgressCallback,
        columns: Optional[Sequence[int]] = None,
    ) -> None:
        """Compute what is not there yet.

        Args:
            teacher: who is asked.
            loader: of the images; it must give the view of an epoch's number, see :attr:`Loader.views`.
            views: how many.
            folder: where they are kept, a file a view.
            progress: called with images done and in all.
            columns: of the teacher's classes, in the student's order; None: all.
        """
        self.teacher, self.views, self.size, self._columns = teacher, views, loader.pipeline.size, columns
        self._folder = folder / _key(teacher, loader)
        self._held: Optional[tuple[int, dict[str, np.ndarray]]] = None
        done, total = 0, views * len(loader.samples)
        for view in range(views):
            if not self._file(view).is_file():
                self._compute(loader, view, functools.partial(_shifted, progress, done, total))
            done += len(loader.samples)
        self.mean: Optional[np.ndarray] = None
        if teacher.features:
            seen = self.of(0)["features"].astype(np.float32)
            self.mean, self.deviation = seen.mean(axis=0), seen.std(axis=0) + 1e-6

    def of(self, view: int) -> dict[str, np.ndarray]:
        """``log_probabilities`` (images, classes) and perhaps ``features`` (images, features), float16."""
        from safetensors.numpy import load_file

        if self._held is None or self._held[0] != view:
            held = load_file(self._file(view))
            if self._columns is not None:
                held["log_probabilities"] = held["log_probabilities"][:, self._columns]
            self._held = view, held
        return self._held[1]

    def _file(self, view: int) -> Path:
        return self._folder / f"view-{view}.safetensors"

    def _compute(self, loader: Loader, view: int, progress: Callable[[int], None]) -> None:
        from safetensors.numpy import save

        teacher, count = self.teacher, len(loader.samples)
        arrays = {"log_probabilities": np.empty((count, teacher.classes), np.float16)}
        if teacher.features:
            arrays["features"] = np.empty((count, teacher.features), np.float16)
        *_, normalize = loader.pipeline.sample
        for batch in loader.unmixed().epoch(view):
            said, seen = teacher.answers(batch.images, normalize)  # type: ignore[arg-type]
            arrays["log_probabilities"][batch.indices] = np.maximum(said, -60000)
            if seen is not None:
                arrays["features"][batch.indices] = np.clip(seen, -60000, 60000)
            progress(int(batch.indices[-1]) + 1)
        with atomic_file(self._file(view)) as temporary:
            temporary.write_bytes(save(arrays))


def _shifted(progress: ProgressCallback, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _key(teacher: Teacher, loader: Loader) -> str:
    """What a teacher's answers depend on."""
    operators = [repr(operator) for operator in loader.pipeline.sample]
    files = [(sample.name, sample.path.stat()) for sample in loader.samples]
    facts = [teacher.digest, loader.seed, operators, [(name, of.st_size, of.st_mtime_ns) for name, of in files]]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
