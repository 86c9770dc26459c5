"""A run's folder: its files, and which run is the latest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Optional

import yaml

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.storage.files import PathLike, recover_directory, user_path, write_text
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import read_yaml

LATEST = Path(".pplc/latest_run")  # in the current folder, like output/


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

    def exists(self) -> bool:
        """Whether at least one epoch was saved here."""
        return any(recover_directory(path).exists() for path in (self.best, self.last))

    def save_config(self, config: Config) -> None:
        """Write ``config.yaml``."""
        write_text(self.config_file, yaml.safe_dump(config.to_dict(), allow_unicode=True, sort_keys=False))

    def load_config(self, overrides: Optional[dict[str, Any]] = None) -> Config:
        """Read ``config.yaml``, with overrides."""
        config = check_config(read_yaml(self.config_file), overrides, source=str(self.config_file))
        return dataclasses.replace(config, output=str(self.folder))  # the folder may have been moved

    def remember(self) -> None:
        """Make this the default run of commands in the current folder."""
        write_text(LATEST, f"{self.folder.absolute()}\n")

    def epochs(self) -> list[dict[str, Any]]:
        """The log's records of epochs."""
        return [record for record in self.records() if record.get("event") == "epoch"]

    def records(self) -> list[dict[str, Any]]:
        """All readable records of the log; a crash can leave half a line at the end."""
        records = []
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        for line in text.splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records


def find_run(folder: Optional[PathLike] = None) -> RunFolder:
    """Find the run in a folder, or the latest run.

    Raises:
        CheckpointError: there is no run.
    """
    if folder is None:
        if not LATEST.is_file():
            raise CheckpointError(
                "no run here yet; train one first (pplc train CONFIG), or choose one with --run FOLDER"
            )
        run = RunFolder(Path(LATEST.read_text(encoding="utf-8").strip()))
        if not run.exists():
            raise CheckpointError(f"the latest run, {run.folder}, no longer exists; choose one with --run FOLDER")
        return run
    run = RunFolder(user_path(folder))
    if not run.exists():
        raise CheckpointError(f"{run.folder}: no trained run (expected best_model/ and config.yaml in it)")
    return run
