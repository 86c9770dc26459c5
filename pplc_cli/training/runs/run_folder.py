"""A run's folder: its files, its lock, and which run is the latest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import yaml

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, read_failure, recover_directory, user_path, write_text
from pplc_cli.base.storage.locks import claim
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import read_yaml

LATEST = Path(".pplc/latest_run")  # in the current folder, like output/
MARK = "# Written by pplc for this run; pplc replaces it.\n"  # begins a run's config.yaml


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Attributes:
        folder: the folder, ``output`` in the configuration.
    """

    folder: Path

    @property
    def config_file(self) -> Path:
        """The complete configuration of the run."""
        return self.folder / "config.yaml"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the best validation scores: model.safetensors, model.json."""
        return self.folder / "best_model"

    @property
    def last(self) -> Path:
        """The checkpoint: everything that the next epoch needs."""
        return self.folder / "last"

    @property
    def log(self) -> Path:
        """JSON lines, one per epoch and one every ``train.log_interval_steps`` steps."""
        return self.folder / "train_log.jsonl"

    @property
    def curves(self) -> Path:
        """Loss, accuracy and learning rate by epoch."""
        return self.folder / "curves.png"

    @property
    def crash(self) -> Path:
        """The traceback of a worker process that failed unexpectedly."""
        return self.folder / "crash.log"

    @property
    def exported(self) -> Path:
        """The exported model."""
        return self.folder / "inference_model"

    @property
    def visualdl(self) -> Path:
        """VisualDL's records."""
        return self.folder / "visualdl"

    @property
    def folds(self) -> Path:
        """The plan of ``pplc train --folds``, in a folder that holds a run for each fold instead of one run."""
        return self.folder / "folds.json"

    def exists(self) -> bool:
        """Whether at least one epoch was saved here."""
        return any(recover_directory(path).exists() for path in (self.best, self.last))

    @contextlib.contextmanager
    def claimed(self, note: Callable[[str], None]) -> Iterator[None]:
        """Create the folder, and keep other processes from training into it for the time of the block.

        Args:
            note: called with a remark if the file system has no locks.

        Raises:
            PplcError: another process trains into it, or it cannot be created.
        """
        new = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                tr("{folder}: cannot be created: {reason}", folder=self.folder, reason=error.strerror)
            ) from None
        try:
            with claim(self.folder, self.folder / ".lock", note=note):
                yield
        finally:
            if new:
                with contextlib.suppress(OSError):  # only an empty one is removed
                    self.folder.rmdir()

    def save_config(self, config: Config) -> None:
        """Write ``config.yaml``."""
        text = yaml.safe_dump(config.to_dict(), allow_unicode=True, sort_keys=False)
        write_text(self.config_file, MARK + text)

    def is_marked(self) -> bool:
        """Whether ``config.yaml`` was written for a run here, and is not the user's."""
        try:
            with self.config_file.open(encoding="utf-8", errors="replace") as file:
                return file.readline() == MARK
        except OSError:
            return False

    def load_config(self, overrides: Optional[dict[str, Any]] = None) -> Config:
        """Read ``config.yaml``, with overrides."""
        config = check_config(read_yaml(self.config_file), overrides, source=str(self.config_file))
        return dataclasses.replace(config, output=str(self.folder))  # the folder may have been moved

    def remember(self) -> None:
        """Make this the default run of commands in the current folder.

        A run below the current folder is named relative to it, so that both may move.

        Raises:
            PplcError: the name cannot be written.
        """
        here, folder = Path.cwd(), self.folder.absolute()
        write_text(LATEST, f"{(folder.relative_to(here) if here in folder.parents else folder).as_posix()}\n")

    def epochs(self) -> list[dict[str, Any]]:
        """The log's records of epochs."""
        return [record for record in self.records() if record["event"] == "epoch"]

    def records(self) -> list[dict[str, Any]]:
        """All readable records of the log; a crash can leave half a line at the end."""
        records = []
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_record(record):
                records.append(record)
        return records


def _is_record(record: Any) -> bool:
    """Whether a line of the log has an event, the number of an epoch, and otherwise numbers, true and false."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("event"), str)
        and isinstance(record.get("epoch"), int)
        and all(isinstance(value, (int, float)) for key, value in record.items() if key != "event")
    )


def latest_run() -> RunFolder:
    """The folder of the latest training that was started in the current folder; it may have no whole epoch yet.

    Raises:
        CheckpointError: there was none.
    """
    try:
        text = LATEST.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise CheckpointError(
            tr("{failure}, or choose a run with --run FOLDER", failure=read_failure(LATEST, error))
        ) from None
    if not text or "\0" in text:
        raise CheckpointError(
            tr("no run here yet; train one first (pplc train CONFIG), or choose one with --run FOLDER")
        )
    return RunFolder(Path(text))


def find_run(folder: Optional[PathLike] = None) -> RunFolder:
    """Find the run in a folder, or the latest run.

    Raises:
        CheckpointError: there is no run.
    """
    if folder is not None:
        run = RunFolder(user_path(folder))
        if not run.exists():
            raise CheckpointError(
                tr("{folder}: no trained run (expected best_model/ and config.yaml in it)", folder=run.folder)
            )
        return run
    run = latest_run()
    if not run.exists() and run.folder.is_dir():
        raise CheckpointError(
            tr(
                "the latest run, {folder}, has no complete epoch: its training failed or has just "
                "started; choose another run with --run FOLDER",
                folder=run.folder,
            )
        )
    if not run.exists():
        raise CheckpointError(
            tr(
                "the latest run, {folder}, does not exist: it was removed, or its training failed; "
                "choose another run with --run FOLDER",
                folder=run.folder,
            )
        )
    return run
