"""Run one engine in a separate process, so that the threads and settings of two engines never interfere.

The parent process uses a :class:`Worker`. The child process writes one line of JSON when its engine is loaded, then one
line for each line of JSON on its standard input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import PplcError, PredictError, one_line
from pplc_cli.base.language.messages import current_language, tr, use_language
from pplc_cli.base.timing import time_runs
from pplc_cli.data.synthetic import random_images
from pplc_cli.predict.engines.open import open_engine

WARM_SECONDS = 0.2  # before each round: fills caches, and lets idle threads of other processes go to sleep
LEAST_RUNS = 2
EXIT_SECONDS = 10.0  # then a process that has not ended is killed


@dataclasses.dataclass(frozen=True)
class BenchCase:
    """The model, engine and settings of one worker.

    Attributes:
        model: as the user named it.
        folder: the exported folder.
        engine: one of :data:`pplc_cli.config.sections.ENGINES`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: threads of the engine.
        size: height and width of the images.
    """

    model: str
    folder: str
    engine: str
    precision: str
    threads: int
    size: tuple[int, int]


class Worker:
    """A process that runs batches on request.

    Attributes:
        started: seconds from the start of the process to its first prediction.
        scores: float32 (classes,), the first prediction; all workers of a model predict the same image.
    """

    def __init__(self, case: BenchCase) -> None:
        """Start the process and wait for its first prediction.

        Raises:
            PredictError: the engine cannot run this model; the message says why.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        request = json.dumps({**dataclasses.asdict(case), "language": current_language()})
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, request],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
        )  # fmt: skip
        try:
            self.scores = np.asarray(self._receive()["scores"], np.float32)
            self.started = time.perf_counter() - began
        except BaseException:
            self.close()
            raise

    def run(self, batch: int, seconds: float) -> list[float]:
        """Run batches for ``seconds``, after a warm-up.

        Returns:
            Seconds of each batch.

        Raises:
            PredictError: the engine cannot run such batches.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process ended; _receive reports why
            self._process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
            self._process.stdin.flush()
        times: list[float] = self._receive()["times"]
        return times

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            if lines:
                raise PredictError(
                    tr("its process ended with status {status}: {error}", status=status, error=lines[-1][:300])
                )
            raise PredictError(tr("its process ended with status {status}", status=status))
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise PredictError(message["error"])
        return message


def _run_batches(engine: Any, images: np.ndarray, seconds: float) -> list[float]:
    run = functools.partial(engine.run, images)
    time_runs(run, WARM_SECONDS, at_least=LEAST_RUNS)
    return time_runs(run, seconds, at_least=LEAST_RUNS)


def main() -> None:
    """Run the worker process."""
    # Keep standard output for JSON: whatever engines and their libraries print goes to standard error.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    case = json.loads(sys.argv[1])
    use_language(case["language"])
    size = tuple(case["size"])
    try:
        engine = open_engine(Path(case["folder"]), case["engine"], precision=case["precision"], threads=case["threads"])
        send(scores=engine.run(random_images(1, size))[0].tolist())
        for line in sys.stdin:
            request = json.loads(line)
            send(times=_run_batches(engine, random_images(request["batch"], size), request["seconds"]))
    except PplcError as error:
        send(error=str(error))
    except Exception as error:  # engines raise errors of their own; one that fails must not stop the others
        send(error=f"{type(error).__name__}: {one_line(error)}")


if __name__ == "__main__":
    main()
