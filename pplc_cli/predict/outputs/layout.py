"""The columns of an output file."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pplc_cli.base.errors import PredictError
from pplc_cli.base.files import plain
from pplc_cli.base.locks import Locked, lock
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class OutputSchema:
    """What an answer consists of.

    Attributes:
        top_k: labels.
        embedding: numbers of an embedding, which stands in place of labels; 0: none.
    """

    top_k: int = 1
    embedding: int = 0

    @classmethod
    def of(cls, predictor: Predictor, top_k: int) -> OutputSchema:
        """What this predictor answers with."""
        return cls(min(top_k, len(predictor.labels)), predictor.embedding_size())

    @property
    def columns(self) -> list[str]:
        """Of a table; those of the best label carry no number."""
        if self.embedding:
            return ["path", "embedding", "error"]
        others = [f"{name}_{rank}" for rank in range(2, self.top_k + 1) for name in ("label", "score")]
        return ["path", "label", "score", "error", *others]

    def row(self, answer: Prediction) -> list[Any]:
        """Values of the columns; None where there is none."""
        path, error = plain(answer.path), None if answer.error is None else plain(answer.error)
        if self.embedding:
            return [path, answer.embedding, error]
        top: list[Any] = [value for label, score in answer.top for value in (label, round(score, 6))]
        top += [None] * (2 * self.top_k - len(top))
        return [path, *top[:2], error, *top[2 : 2 * self.top_k]]


@dataclasses.dataclass(frozen=True)
class Done:
    """An answer that a file holds already."""

    path: str
    failed: bool


class Output(abc.ABC):
    """A file of answers, which is safe to leave at any moment: what :meth:`sync` has seen stays.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, layout: OutputSchema) -> None:
        self.path, self.layout = path, layout
        self._lock = contextlib.ExitStack()

    def _hold(self, lock_file: Path) -> None:
        """Keep other processes from writing the same output until :meth:`close`.

        Raises:
            PredictError: another process writes it.
        """
        try:
            self._lock.enter_context(lock(lock_file, wait=False))
        except Locked:
            raise PredictError(
                f"{self.path}: another process is writing it; wait for its end, or name another file"
            ) from None

    @abc.abstractmethod
    def claim(self) -> None:
        """Take hold of it, for this process alone.

        Raises:
            PredictError: another process writes it.
        """

    @abc.abstractmethod
    def clear(self) -> None:
        """Start from nothing."""

    @abc.abstractmethod
    def done(self) -> Iterator[Done]:
        """Whole answers that are there, in order; what follows them is cut off by the next :meth:`write`."""

    @abc.abstractmethod
    def write(self, answer: Prediction) -> None:
        """Append an answer."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Have all answers so far on the disk, whatever happens from here on."""

    def finish(self) -> None:
        """After the last answer."""
        self.sync()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._lock.close()
