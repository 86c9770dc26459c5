"""Everything that leaves a run while it trains: reports to the user, the log, checkpoints; and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.config.sections import Config
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from pplc_cli.training.runs.state import TrainState
    from pplc_cli.training.samples import Samples

SCALARS = ("loss", "top1", "learning_rate", "train_loss", "train_top1", "val_loss", "val_top1")  # in VisualDL


class Reporter:
    """Receives the progress of a run. The command line prints it; a notebook may override any method."""

    def note(self, text: str) -> None:
        """Receive a remark for the user."""

    def download(self, done: int, total: Optional[int]) -> None:
        """Receive the bytes of pretrained weights downloaded so far, and the total if it is known."""

    def teacher(self, done: int, total: Optional[int]) -> None:
        """Receive the number of images that the teacher has predicted, and the total."""

    def step(self, record: dict[str, Any]) -> None:
        """Receive a step: epoch, epochs, step, steps, loss, top1, learning_rate, images_per_second, seconds_left."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Receive an epoch: its line of the log."""


class RunLog:
    """Reports a run and writes its folder; in all processes but the first one it does nothing.

    As a context, it opens VisualDL's log, and at the end it draws the curves.
    """

    def __init__(self, run: RunFolder, config: Config, samples: Samples, reporter: Reporter, writes: bool) -> None:
        """
        Args:
            run: the folder.
            config: of the run.
            samples: of the run.
            reporter: receives steps and epochs.
            writes: whether this is the first process.

        Raises:
            TrainError: ``train.visualdl`` is true, but VisualDL is not installed.
        """
        self._run, self._config, self._reporter, self._writes = run, config, reporter, writes
        self._info = checkpoint.model_info(config, samples.labels)
        self._origin = {"fingerprint": samples.fingerprint, "config": config.to_dict()}
        self._open_visualdl = _visualdl_writer() if config.train.visualdl and writes else None
        self._visualdl: Any = None

    def __enter__(self) -> RunLog:
        if self._open_visualdl is not None:
            self._visualdl = self._open_visualdl(logdir=str(self._run.visualdl), display_name=self._run.folder.name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._writes:
            self._draw_curves()
        if self._visualdl is not None:
            self._visualdl.close()

    def step(self, record: dict[str, Any]) -> None:
        """Report a step; every ``train.log_interval_steps`` steps it goes to the log."""
        if not self._writes:
            return
        self._reporter.step(record)
        if record["step"] % self._config.train.log_interval_steps == 0:
            self._write(record)

    def probe(self, record: dict[str, Any]) -> None:
        """Log and report the scores of the linear probe."""
        if self._writes:
            self._write(record, sync=True)
            self._reporter.note(
                f"linear probe (classifier alone, on pretrained features): val top-1 {record['val_top1']:.1%}"
            )

    def epoch(self, record: dict[str, Any], state: TrainState) -> None:
        """Log an epoch, save its checkpoint, and report it, in this order: a resumed run drops a line too many."""
        if self._writes:
            self._write(record, sync=True)
            state.save(self._run.last, self._info, self._origin)
            self._run.remember()
            self._reporter.epoch(record)

    def save_best(self, state: TrainState) -> None:
        """Save the network as ``best_model``."""
        if self._writes:
            info = {**self._info, **(state.best or {})}
            checkpoint.save(self._run.best, info, model=checkpoint.network_arrays(state.network))

    def _write(self, record: dict[str, Any], sync: bool = False) -> None:
        file = self._run.log
        try:
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines.flush()
                if sync:
                    os.fsync(lines.fileno())
        except OSError as error:
            raise TrainError(f"cannot write {file}: {error.strerror}; free some space, then --resume") from None
        if self._visualdl is not None:
            name = "step" if record["event"] == "step" else "epoch"
            step = record["epoch"] if name == "epoch" else (record["epoch"] - 1) * record["steps"] + record["step"]
            for key in record.keys() & set(SCALARS):
                self._visualdl.add_scalar(tag=f"{name}/{key}", value=record[key], step=step)

    def _draw_curves(self) -> None:
        from pplc_cli.plots.curves import draw_curves

        epochs = self._run.epochs()
        if epochs:
            try:
                draw_curves(self._run.curves, epochs)
            except PplcError as error:  # the disk is full: the weights matter, the image does not
                self._reporter.note(str(error))


def _visualdl_writer() -> Callable[..., Any]:
    try:
        from visualdl import LogWriter
    except ImportError:
        raise TrainError("train.visualdl needs VisualDL; install it with: pip install 'pplc[visualdl]'") from None
    return LogWriter


class Interrupts:
    """Delays Ctrl-C until :meth:`check`; a second Ctrl-C takes effect at once.

    Inside Paddle's backward pass, a KeyboardInterrupt would turn into another error; inside a destructor it would be
    lost.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: Any) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True

    def check(self, *_: object) -> None:
        """Raise what Ctrl-C would have raised.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
        """
        if self._came:
            raise KeyboardInterrupt
