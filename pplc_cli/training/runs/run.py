"""A run opened from Python: its configuration, history, labels and evaluations."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from typing import Any, Optional, Union

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import Config
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run_folder import RunFolder, find_run


@dataclasses.dataclass(frozen=True)
class Run(RunFolder):
    """A trained run; :func:`load_run` opens it.

    Attributes:
        folder: its folder. The paths of its files are attributes, too: ``best`` (the folder with the best weights,
            ``model.safetensors``), ``last`` (the checkpoint), ``exported`` (the folder that ``export`` writes, for
            ``Predictor``), ``log``, ``curves`` and ``config_file``.
    """

    @functools.cached_property
    def config(self) -> Config:
        """The configuration of the run; ``output`` is where the folder is now.

        Raises:
            ConfigError: ``config.yaml`` is missing or not valid.
        """
        return self.load_config()

    @property
    def labels(self) -> list[str]:
        """The class names, in the order of the network's outputs.

        Raises:
            CheckpointError: no epoch was saved, or ``model.json`` is damaged.
        """
        labels = load_info(self.best, "model").get("labels")
        if not isinstance(labels, list):
            raise CheckpointError(tr("{file} is damaged: it has no labels", file=self.best / "model.json"))
        return [str(label) for label in labels]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per epoch: ``epoch``, ``train_loss``, ``train_top1``, ``val_loss``, ``val_top1``, ``best``,
        ``learning_rate``, ``images_per_second``, ``seconds`` and more; accuracies are shares from 0 to 1."""
        return self.epochs()

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The reports that ``evaluate`` wrote into the run, by the name of the list or folder, as in ``test``.

        Raises:
            CheckpointError: a report is damaged.
        """
        reports = {}
        for file in sorted(self.folder.glob("eval_*/metrics.json")):
            try:
                reports[file.parent.name[len("eval_") :]] = dict(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise CheckpointError(
                    tr("{file} is damaged: {error}; write it again with evaluate", file=file, error=error)
                ) from None
        return reports


def load_run(folder: Optional[PathLike] = None) -> Run:
    """Open a run that ``train`` wrote.

    Args:
        folder: the run's folder, ``output`` of its configuration; None: the latest run of the current folder.

    Raises:
        TypeError: ``folder`` is no path.
        CheckpointError: there is no run.
    """
    expect_type("folder", folder, str, os.PathLike, type(None))
    return Run(find_run(folder).folder)


def open_run(run: Union[RunFolder, PathLike], config: Union[Config, PathLike, None]) -> tuple[Run, Config]:
    """The run and the configuration that a public function was given.

    Args:
        run: the run, or its folder.
        config: a configuration, or its YAML file; None: that of the run.

    Raises:
        TypeError: an argument has another type.
        PplcError: there is no such run, or the configuration is not valid.
    """
    expect_type("run", run, RunFolder, str, os.PathLike)
    expect_type("config", config, Config, str, os.PathLike, type(None))
    opened = Run(run.folder) if isinstance(run, RunFolder) else load_run(run)
    return opened, opened.config if config is None else as_config(config)
