"""The columns of an output file, and the interface of its formats."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.locks import Locked, lock
from pplc_cli.base.text import plain
from pplc_cli.predict.confidence import UNKNOWN
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class OutputSchema:
    """The fields of a prediction in a file.

    Attributes:
        top_k: labels per image.
        embedding: length of the embedding that replaces the labels; 0: no embedding.
        unknown: whether there are columns that say if an image is unlike the training images.
        sets: whether there is a column with a set of labels.
    """

    top_k: int = 1
    embedding: int = 0
    unknown: bool = False
    sets: bool = False

    @classmethod
    def of(cls, predictor: Predictor, top_k: int) -> OutputSchema:
        """The schema of a predictor's predictions."""
        return cls(
            min(top_k, len(predictor.labels)),
            predictor.embedding_size(),
            predictor.unknown,
            predictor.coverage is not None,
        )

    @property
    def columns(self) -> list[str]:
        """Column names of a table; those of the best label have no number."""
        if self.embedding:
            return ["path", "embedding", "error"]
        others = [f"{name}_{rank}" for rank in range(2, self.top_k + 1) for name in ("label", "score")]
        more = ["unknown", "distance"] * self.unknown + ["set"] * self.sets
        return ["path", "label", "score", "error", *others, *more]

    def row(self, prediction: Prediction) -> list[Any]:
        """The values of the columns; None for a missing value."""
        path, error = plain(prediction.path), None if prediction.error is None else plain(prediction.error)
        if self.embedding:
            return [path, prediction.embedding, error]
        top: list[Any] = [value for label, score in prediction.top for value in (plain(label), round(score, 6))]
        top += [None] * (2 * self.top_k - len(top))
        if prediction.unknown:
            top[0] = UNKNOWN
        more: list[Any] = []
        if self.unknown:
            distance = None if prediction.distance is None else round(prediction.distance, 6)
            more += [prediction.unknown, distance]
        if self.sets:
            more.append(None if prediction.label_set is None else [plain(label) for label in prediction.label_set])
        return [path, *top[:2], error, *top[2 : 2 * self.top_k], *more]


@dataclasses.dataclass(frozen=True)
class WrittenRow:
    """A prediction that a file already holds."""

    path: str
    failed: bool


class Output(abc.ABC):
    """A file of predictions that may be abandoned at any time: everything before the last :meth:`sync` is kept.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, schema: OutputSchema) -> None:
        self.path, self.schema = path, schema
        self._lock = contextlib.ExitStack()
        self._lock_file: Optional[Path] = None

    def _acquire(self, lock_file: Path) -> None:
        """Keep other processes from writing the same output until :meth:`close`.

        Raises:
            PredictError: another process is writing it.
        """
        try:
            self._lock.enter_context(lock(lock_file, wait=False))
        except Locked:
            raise PredictError(
                tr("{path}: another process is writing it; wait until it ends, or choose another file", path=self.path)
            ) from None
        self._lock_file = lock_file

    def is_empty(self) -> bool:
        """Whether the file holds no byte of a prediction; it exists, and need not be open."""
        return not self.path.stat().st_size

    @abc.abstractmethod
    def open(self) -> None:
        """Open the file for this process alone.

        Raises:
            PredictError: another process is writing it.
        """

    @abc.abstractmethod
    def clear(self) -> None:
        """Discard what the file holds, from the next :meth:`write` or :meth:`sync` on."""

    @abc.abstractmethod
    def written(self) -> Iterator[WrittenRow]:
        """Yield the complete predictions of the file in order; the next :meth:`write` cuts off the rest."""

    @abc.abstractmethod
    def write(self, prediction: Prediction) -> None:
        """Append a prediction."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Flush all predictions to the disk."""

    def finish(self) -> None:
        """Complete the file after the last prediction."""
        self.sync()

    def close(self) -> None:
        """Close the file, and release its lock."""
        if self._lock_file is not None:
            with contextlib.suppress(OSError):  # on Windows the lock removes its file itself, when it is released
                self._lock_file.unlink()
            self._lock_file = None
        self._lock.close()
