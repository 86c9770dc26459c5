"""The log of a run: its JSON lines, checkpoints, curves and VisualDL records, and the reports to the user."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import Config
from pplc_cli.plots.curves import draw_curves
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.samples import Samples

if TYPE_CHECKING:
    from pplc_cli.training.runs.state import TrainState  # imports Paddle

SCALARS = ("loss", "top1", "learning_rate", "train_loss", "train_top1", "val_loss", "val_top1")  # in VisualDL


class RunLog:
    """Reports a run and writes its folder; does nothing in other processes than the first one.

    A context manager: it opens VisualDL's log at the start, and draws the curves at the end.
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
        """Report a step, and log every step whose number is a multiple of ``train.log_interval_steps``."""
        if not self._writes:
            return
        self._reporter.step(record)
        self._reporter.check()
        if record["step"] % self._config.train.log_interval_steps == 0:
            self._write(record)

    def probe(self, record: dict[str, Any]) -> None:
        """Log and report the scores of the linear probe."""
        if self._writes:
            self._write(record, sync=True)
            self._reporter.note(
                tr(
                    "linear probe (classifier alone, on pretrained features): val top-1 {val_top1:.1%}",
                    val_top1=record["val_top1"],
                )
            )

    def epoch(self, record: dict[str, Any], state: TrainState) -> None:
        """Log an epoch, save its checkpoint and report it, in this order; resuming drops lines after the checkpoint."""
        if self._writes:
            self._write(record, sync=True)
            state.save(self._run.last, self._info, self._origin)
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
            raise TrainError(
                tr(
                    "cannot write {file}: {reason}; free some space, then --resume",
                    file=file,
                    reason=error.strerror,
                )
            ) from None
        if self._visualdl is not None:
            name = "step" if record["event"] == "step" else "epoch"
            step = record["epoch"] if name == "epoch" else (record["epoch"] - 1) * record["steps"] + record["step"]
            for key in record.keys() & set(SCALARS):
                self._visualdl.add_scalar(tag=f"{name}/{key}", value=record[key], step=step)

    def _draw_curves(self) -> None:
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
        raise TrainError(tr("train.visualdl needs VisualDL; install it with: pip install 'pplc[visualdl]'")) from None
    return LogWriter
