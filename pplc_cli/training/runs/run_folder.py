"""A run's folder: what lies where, and which run was the latest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Optional

import yaml

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.files import PathLike, recover_directory, user_path, write_text
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import read_yaml

LATEST = Path(".pplc/latest_run")  # in the current folder, like output/ itself


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder that ``output`` names.

    Attributes:
        folder: the run.
    """

    folder: Path

    @property
    def config_file(self) -> Path:
        """The whole configuration that the run was trained with."""
        return self.folder / "config.yaml"

    @property
    def best(self) -> Path:
        """Weights of the best epoch by validation: model.safetensors, model.json."""
        return self.folder / "best_model"

    @property
    def last(self) -> Path:
        """All that the next epoch needs."""
        return self.folder / "last"

    @property
    def log(self) -> Path:
        """JSON lines, one a step interval and one an epoch."""
        return self.folder / "train_log.jsonl"

    @property
    def curves(self) -> Path:
        """Loss, accuracy and learning rate by epoch."""
        return self.folder / "curves.png"

    @property
    def crash(self) -> Path:
        """What a worker process said that failed in a way nobody foresaw."""
        return self.folder / "crash.log"

    @property
    def exported(self) -> Path:
        """The folder that PaddleX loads."""
        return self.folder / "inference_model"

    @property
    def visualdl(self) -> Path:
        """VisualDL's records."""
        return self.folder / "visualdl"

    def exists(self) -> bool:
        """Whether at least one epoch was trained here."""
        return any(recover_directory(path).exists() for path in (self.best, self.last))

    def save_config(self, config: Config) -> None:
        """Write ``config.yaml``."""
        write_text(self.config_file, yaml.safe_dump(config.to_dict(), allow_unicode=True, sort_keys=False))

    def load_config(self, overrides: Optional[dict[str, Any]] = None) -> Config:
        """Read ``config.yaml`` back, with overrides."""
        config = check_config(read_yaml(self.config_file), overrides, source=str(self.config_file))
        return dataclasses.replace(config, output=str(self.folder))  # the folder may have been moved

    def remember(self) -> None:
        """Make this the latest run for commands in the current folder."""
        write_text(LATEST, f"{self.folder.absolute()}\n")

    def epochs(self) -> list[dict[str, Any]]:
        """The log's lines of whole epochs."""
        return [record for record in self.records() if record.get("event") == "epoch"]

    def records(self) -> list[dict[str, Any]]:
        """The log's readable lines; a crash can leave half a line at the end."""
        records = []
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        for line in text.splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records


def find_run(folder: Optional[PathLike] = None) -> RunFolder:
    """The run of a folder, or the latest one.

    Raises:
        CheckpointError: there is none.
    """
    if folder is None:
        if not LATEST.is_file():
            raise CheckpointError("no run here yet; train one first (pplc train CONFIG), or name one with --run FOLDER")
        run = RunFolder(Path(LATEST.read_text(encoding="utf-8").strip()))
        if not run.exists():
            raise CheckpointError(f"the latest run, {run.folder}, is not there any more; name one with --run FOLDER")
        return run
    run = RunFolder(user_path(folder))
    if not run.exists():
        raise CheckpointError(f"{run.folder}: no trained run (expected best_model/ and config.yaml in it)")
    return run
