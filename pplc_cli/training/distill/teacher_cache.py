"""A teacher's predictions, stored on disk."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import atomic_file
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.training.distill.teacher import Teacher


class TeacherCache:
    """A teacher's predictions for several augmented views of every image, computed once and stored on disk.

    Attributes:
        teacher: the teacher.
        views: augmented versions of each image; epoch e uses view e modulo this.
        size: height and width of the images.
        mean, deviation: of the features over all images, float32 (features,); mean is None without features.
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
        """Compute the predictions that are not stored yet.

        Args:
            teacher: the teacher.
            loader: of the images, with Normalize as its last transform; its ``views`` must be set.
            views: number of views.
            folder: holds one file per view.
            progress: called with the number of images done and the total.
            columns: the teacher's classes in the student's order; None: as they are.
        """
        self.teacher, self.views, self.size, self._columns = teacher, views, loader.pipeline.size, columns
        self._folder = folder / _key(teacher, loader)
        self._held: Optional[tuple[int, dict[str, np.ndarray]]] = None
        done, total = 0, views * len(loader.samples)
        for view in range(views):
            if not self._is_stored(view, len(loader.samples)):
                self._compute(loader, view, functools.partial(_shifted, progress, done, total))
            done += len(loader.samples)
        self.mean: Optional[np.ndarray] = None
        if teacher.features:
            features = self.of(0)["features"].astype(np.float32)
            self.mean, self.deviation = features.mean(axis=0), features.std(axis=0) + 1e-6

    def of(self, view: int) -> dict[str, np.ndarray]:
        """Return ``log_probabilities`` (images, classes) and perhaps ``features`` (images, features), float16."""
        from safetensors.numpy import load_file

        if self._held is None or self._held[0] != view:
            held = load_file(self._file(view))
            if self._columns is not None:
                held["log_probabilities"] = held["log_probabilities"][:, self._columns]
            self._held = view, held
        return self._held[1]

    def _file(self, view: int) -> Path:
        return self._folder / f"view-{view}.safetensors"

    def _is_stored(self, view: int, images: int) -> bool:
        """Whether the file of a view is there and whole."""
        from safetensors import SafetensorError, safe_open

        if not self._file(view).is_file():
            return False
        wanted = {"log_probabilities": [images, self.teacher.classes]}
        if self.teacher.features:
            wanted["features"] = [images, self.teacher.features]
        try:
            with safe_open(self._file(view), "numpy") as stored:  # compares the header with the size of the file
                slices = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            return {name: each.get_shape() for name, each in slices.items() if each.get_dtype() == "F16"} == wanted
        except SafetensorError:
            return False

    def _compute(self, loader: Loader, view: int, progress: Callable[[int], None]) -> None:
        from safetensors.numpy import save

        teacher, count = self.teacher, len(loader.samples)
        arrays = {"log_probabilities": np.empty((count, teacher.classes), np.float16)}
        if teacher.features:
            arrays["features"] = np.empty((count, teacher.features), np.float16)
        normalize = loader.pipeline.sample[-1]
        assert isinstance(normalize, Normalize)
        for batch in loader.unmixed().epoch(view):
            predicted, features = teacher.predict(batch.images, normalize)
            arrays["log_probabilities"][batch.indices] = np.maximum(predicted, -60000)  # float16 ends at 65504
            if features is not None:
                arrays["features"][batch.indices] = np.clip(features, -60000, 60000)
            progress(int(batch.indices[-1]) + 1)
        with atomic_file(self._file(view)) as temporary:
            temporary.write_bytes(save(arrays))


def _shifted(progress: ProgressCallback, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _key(teacher: Teacher, loader: Loader) -> str:
    """A hash of everything that the stored predictions depend on."""
    operators = [repr(operator) for operator in loader.pipeline.sample]
    files = [(sample.name, sample.path.stat()) for sample in loader.samples]
    facts = [teacher.digest, loader.seed, operators, [(name, of.st_size, of.st_mtime_ns) for name, of in files]]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
