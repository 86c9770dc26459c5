"""A run over many images whose answers go to a file, and that goes on where it was killed.

Beside ``FILE`` stands ``FILE.state.json``: the model and the options that made it. The answers themselves say how far
it got: the same words give the same images in the same order, and each answer's name is compared as it is skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Optional

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.files import PathLike, plain, user_path, write_json
from pplc_cli.predict.exported_model import hash_model
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.outputs.layout import Output, OutputSchema
from pplc_cli.predict.outputs.open import open_output
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

CHECKPOINT = 2.0  # seconds of work that a lost machine may cost


@dataclasses.dataclass(frozen=True)
class RunSignature:
    """What answers depend on beside the images.

    Attributes:
        model: SHA-256 of the exported folder's files.
    """

    model: str
    engine: str
    precision: str
    top_k: int
    embeddings: bool

    @classmethod
    def of(cls, predictor: Predictor, layout: OutputSchema) -> RunSignature:
        """What this predictor's answers depend on."""
        engine = predictor.engine
        return cls(hash_model(predictor.folder), engine.name, engine.precision, layout.top_k, predictor.features)


def peeked(sources: Iterator[Source]) -> Iterator[Source]:
    """The same sources, the first of which has been drawn: where a word is wrong this raises, and nothing was done."""
    return chain(list(islice(sources, 1)), sources)


class ResumableOutput:
    """Answers on their way to a file.

    Attributes:
        path: the file.
        done: answers that it held already.
        failed: how many of them were errors.
    """

    def __init__(
        self, file: PathLike, predictor: Predictor, layout: OutputSchema, *, resume: bool = False, force: bool = False
    ) -> None:
        """Open the file, or go on with it.

        Args:
            file: its suffix says the format.
            predictor: must be as before where ``resume`` finds answers.
            layout: of the answers.
            resume: go on after the last whole answer, where there is one.
            force: replace what is there.

        Raises:
            PplcError: it is there and neither was said, it is of another model or other options, another process has
                it, or it cannot be written.
        """
        path = self.path = user_path(file)
        facts = self.facts = RunSignature.of(predictor, layout)
        self.state = path.with_name(f"{path.name}.state.json")
        self.done = self.failed = 0
        self._output: Output = open_output(path, layout)
        began = path.exists() or self.state.exists()
        if began and not (resume or force):
            raise PredictError(f"{path} is there already; --resume goes on with it, --force replaces it")
        goes_on = resume and not force and began and self._belongs()
        with self._told():
            self._output.claim()
            if not goes_on:
                self._output.clear()
                self._output.sync()
                write_json(self.state, {**dataclasses.asdict(facts), "finished": False})

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The images without an answer yet.

        Raises:
            PredictError: the answers that are there are of other images.
        """
        waiting = iter(sources)
        try:
            with self._told():
                for answer in self._output.done():
                    source = next(waiting, None)
                    if source is None or plain(source.name) != answer.path:
                        raise PredictError(self._other(answer.path, source))
                    self.done += 1
                    self.failed += answer.failed
        except BaseException:
            self._output.close()
            raise
        return waiting

    def record(self, answers: Iterable[Prediction]) -> Iterator[Prediction]:
        """Write answers as they pass; the file is whole once all have passed.

        Raises:
            PplcError: it cannot be written; what was written stays.
        """
        synced = time.monotonic()
        total, failed = self.done, self.failed
        try:
            for answer in answers:
                with self._told():
                    self._output.write(answer)
                    total, failed = total + 1, failed + (answer.error is not None)
                    if time.monotonic() - synced > CHECKPOINT:
                        self._output.sync()
                        synced = time.monotonic()
                yield answer
            with self._told():
                self._output.finish()
                counts = {"finished": True, "pictures": total, "failed": failed}
                write_json(self.state, {**dataclasses.asdict(self.facts), **counts})
        except BaseException:  # Ctrl-C, a full disk, a list that cannot be read: keep what there is
            with contextlib.suppress(OSError, PplcError):
                self._output.sync()
            raise
        finally:
            self._output.close()

    def _other(self, path: str, source: Optional[Source]) -> str:
        now = "has no more images" if source is None else f"has {source.name} there"
        return (
            f"{self.path}: answer {self.done + 1} is of {path}, but the input now {now}; give the input it was begun "
            "with, or --force to start again"
        )

    def _belongs(self) -> bool:
        """Whether there are answers to go on after."""
        if not self.state.is_file():
            if not self.path.stat().st_size:
                return False
            raise PredictError(f"{self.path} is of no run that could go on ({self.state.name} is missing); use --force")
        try:
            state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
            other = {key: state[key] for key in dataclasses.asdict(self.facts)}
        except (OSError, ValueError, KeyError, TypeError):
            raise PredictError(f"{self.state} is damaged; --force starts {self.path} again") from None
        mine = dataclasses.asdict(self.facts)
        differing = [key for key in mine if mine[key] != other[key]]
        if differing:
            shown = ", ".join(
                "another model" if key == "model" else f"{key} {other[key]}, not {mine[key]}" for key in differing
            )
            raise PredictError(f"{self.path} was begun with {shown}; give the same, or --force to start again")
        return True

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PplcError(
                f"cannot write {self.path}: {error.strerror or error}; once that is put right, the same command with "
                "--resume goes on"
            ) from error
