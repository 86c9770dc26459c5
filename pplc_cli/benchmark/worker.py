"""One engine in a process of its own, so that neither threads nor settings of two engines meet.

The parent holds a :class:`Worker`; the process answers each line of JSON on its standard input with another.
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

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.timing import time_runs
from pplc_cli.data.synthetic import random_images

WARM_SECONDS = 0.2  # of each turn: kernels and caches, and threads of others that still wait for work
LEAST_RUNS = 2
PATIENCE = 10.0  # seconds for a process to end


@dataclasses.dataclass(frozen=True)
class Case:
    """What a worker runs.

    Attributes:
        model: as it was asked for.
        folder: the exported model.
        engine: one of :data:`pplc_cli.config.sections.ENGINES`.
        precision: one of :data:`pplc_cli.config.sections.PRECISIONS`.
        threads: of the engine.
        size: height and width of the images.
    """

    model: str
    folder: str
    engine: str
    precision: str
    threads: int
    size: tuple[int, int]


class Worker:
    """A process that runs a case when it is told to.

    Attributes:
        started: seconds from the start of the process to its first answer.
        scores: float32 (classes,), that answer: the same image's for every worker of a model.
    """

    def __init__(self, case: Case) -> None:
        """Start it and wait for the first answer.

        Raises:
            PredictError: the engine does not run this model; the text says why.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
        )  # fmt: skip
        try:
            self.scores = np.asarray(self._answer()["scores"], np.float32)
            self.started = time.perf_counter() - began
        except BaseException:
            self.close()
            raise

    def run(self, batch: int, seconds: float) -> list[float]:
        """Run batches for so long, after some to warm up.

        Returns:
            Seconds of each.

        Raises:
            PredictError: the engine does not run such batches.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what the process says of its end follows
            self._process.stdin.write(json.dumps({"batch": batch, "seconds": seconds}) + "\n")
            self._process.stdin.flush()
        times: list[float] = self._answer()["times"]
        return times

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            raise PredictError(f"its process ended with status {status}" + (f": {said[-1][:300]}" if said else ""))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PredictError(answer["error"])
        return answer


def _times(engine: Any, images: np.ndarray, seconds: float) -> list[float]:
    run = functools.partial(engine.run, images)
    time_runs(run, WARM_SECONDS, at_least=LEAST_RUNS)
    return time_runs(run, seconds, at_least=LEAST_RUNS)


def main() -> None:
    """The process: its first answer comes by itself, each other to a line on standard input."""
    # Engines and their libraries print what they like; it must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    case = json.loads(sys.argv[1])
    size = tuple(case["size"])
    try:
        from pplc_cli.predict.engines.open import open_engine

        engine = open_engine(Path(case["folder"]), case["engine"], precision=case["precision"], threads=case["threads"])
        tell(scores=engine.run(random_images(1, size))[0].tolist())
        for line in sys.stdin:
            asked = json.loads(line)
            tell(times=_times(engine, random_images(asked["batch"], size), asked["seconds"]))
    except PplcError as error:
        tell(error=str(error))
    except Exception as error:  # an engine's own kinds: one that fails must not hide what the others do
        tell(error=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:300]}")


if __name__ == "__main__":
    main()
