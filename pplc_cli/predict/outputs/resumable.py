"""Write predictions to a file that a later call can continue.

Beside ``FILE``, ``FILE.state.json`` records the model and the options. A resumed call skips the images that the file
already holds: the same arguments give the same images in the same order, and the path of each is compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Optional

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, user_path, write_json
from pplc_cli.base.text import plain
from pplc_cli.predict.exported_model import hash_model
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.outputs.base import Output, OutputSchema
from pplc_cli.predict.outputs.open import open_output
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

CHECKPOINT = 2.0  # seconds of work that a power failure may cost
_OLDER = {"calibrated": False, "unknown": False, "coverage": None}  # what states of older versions do not name


@dataclasses.dataclass(frozen=True)
class RunSignature:
    """The inputs of a run that determine its predictions, except the images.

    Attributes:
        model: SHA-256 of the exported folder's files.
    """

    model: str
    engine: str
    precision: str
    top_k: int
    embeddings: bool
    calibrated: bool
    unknown: bool
    coverage: Optional[float]

    @classmethod
    def of(cls, predictor: Predictor, schema: OutputSchema) -> RunSignature:
        """The signature of a run with this predictor."""
        engine = predictor.engine
        return cls(
            model=hash_model(predictor.folder),
            engine=engine.name,
            precision=engine.precision,
            top_k=schema.top_k,
            embeddings=predictor.features,
            calibrated=predictor.calibrated,
            unknown=predictor.unknown,
            coverage=predictor.coverage,
        )


def peeked(sources: Iterator[Source]) -> Iterator[Source]:
    """Read the first source in advance, so that a wrong first argument raises before a file is replaced."""
    return chain(list(islice(sources, 1)), sources)


class ResumableOutput:
    """A file of predictions.

    Attributes:
        path: the file.
        done: predictions that it held before this run.
        failed: number of these that were errors.
        note: a sentence about a file that is begun again, or None.
    """

    def __init__(
        self, file: PathLike, predictor: Predictor, schema: OutputSchema, *, resume: bool = False, force: bool = False
    ) -> None:
        """Create the file, or open it to continue it.

        Args:
            file: its suffix determines the format.
            predictor: to continue a file, the model and options that began it.
            schema: the fields of the predictions.
            resume: continue after the last complete prediction, if the file exists.
            force: replace the file.

        Raises:
            PplcError: the file exists and neither ``resume`` nor ``force`` is given, it was written with another model
                or other options, another process is writing it, or it cannot be written.
        """
        path = self.path = user_path(file)
        self.signature = RunSignature.of(predictor, schema)
        self.state = path.with_name(f"{path.name}.state.json")
        self.done = self.failed = 0
        self.note: Optional[str] = None
        self._output: Output = open_output(path, schema)
        exists = path.exists() or self.state.exists()
        if exists and not (resume or force):
            raise PredictError(tr("{path} already exists; --resume continues it, --force replaces it", path=path))
        resumes = resume and not force and exists and self._can_resume()
        with self._write_errors():
            self._output.open()
            if not resumes:
                # A process may die between any two of these steps: a state must never stand beside the predictions of
                # another run.
                self.state.unlink(missing_ok=True)
                self._output.clear()
                self._output.sync()
                write_json(self.state, {**dataclasses.asdict(self.signature), "finished": False})

    def remaining(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Skip the images that the file holds already.

        Raises:
            PredictError: the file holds predictions of other images.
        """
        waiting = iter(sources)
        try:
            with self._write_errors():
                for row in self._output.written():
                    source = next(waiting, None)
                    if source is None or plain(source.name) != row.path:
                        raise PredictError(self._mismatch(row.path, source))
                    self.done += 1
                    self.failed += row.failed
        except BaseException:
            self._output.close()
            raise
        return waiting

    def record(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Write predictions and yield them; the file is complete after the last one.

        Raises:
            PplcError: the file cannot be written; it keeps what was written.
        """
        synced = time.monotonic()
        total, failed = self.done, self.failed
        try:
            for prediction in predictions:
                with self._write_errors():
                    self._output.write(prediction)
                    total, failed = total + 1, failed + (prediction.error is not None)
                    if time.monotonic() - synced > CHECKPOINT:
                        self._output.sync()
                        synced = time.monotonic()
                yield prediction
            with self._write_errors():
                self._output.finish()
                counts = {"finished": True, "pictures": total, "failed": failed}
                write_json(self.state, {**dataclasses.asdict(self.signature), **counts})
        except BaseException:  # Ctrl-C, a full disk, an unreadable list: keep the predictions so far
            with contextlib.suppress(OSError, PplcError):
                self._output.sync()
            raise
        finally:
            if isinstance(predictions, Generator):
                predictions.close()  # ends its threads here; the garbage collector may run in one of them
            self._output.close()

    def _mismatch(self, path: str, source: Optional[Source]) -> str:
        if source is None:
            return tr(
                "{file}: prediction {number} is of {path}, but the input has no more images; give the same input as "
                "before, or --force to start again",
                file=self.path,
                number=self.done + 1,
                path=path,
            )
        return tr(
            "{file}: prediction {number} is of {path}, but image {number} of the input is {image}; give the same "
            "input as before, or --force to start again",
            file=self.path,
            number=self.done + 1,
            path=path,
            image=source.name,
        )

    def _can_resume(self) -> bool:
        """Whether the file holds predictions of the same model and options; False if it is empty."""
        if not self.state.is_file():
            if self._output.is_empty():
                self.note = tr("{path} has no predictions yet; it is begun again", path=self.path)
                return False
            raise PredictError(
                tr(
                    "{path} cannot be resumed: {name} is missing; --force replaces it",
                    path=self.path,
                    name=self.state.name,
                )
            )
        try:
            state: dict[str, Any] = json.loads(self.state.read_text(encoding="utf-8"))
            before = {key: {**_OLDER, **state}[key] for key in dataclasses.asdict(self.signature)}
        except (OSError, ValueError, KeyError, TypeError):
            raise PredictError(
                tr("{state} is damaged; --force starts {path} again", state=self.state, path=self.path)
            ) from None
        now = dataclasses.asdict(self.signature)
        differing = [key for key in now if now[key] != before[key]]
        if differing:
            shown = ", ".join(
                tr("another model")
                if key == "model"
                else tr("{key} {before}, not {now}", key=key, before=before[key], now=now[key])
                for key in differing
            )
            raise PredictError(
                tr(
                    "{path} was begun with {shown}; give the same, or --force to start again",
                    path=self.path,
                    shown=shown,
                )
            )
        return True

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PplcError(
                tr(
                    "cannot write {path}: {reason}; solve this, then continue with --resume",
                    path=self.path,
                    reason=error.strerror or error,
                )
            ) from error
