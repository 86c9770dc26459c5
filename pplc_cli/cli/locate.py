"""From what a user typed to a configuration, a data set's folder or a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.files import user_path
from pplc_cli.base.schema import did_you_mean
from pplc_cli.config.load import check_config, load_config
from pplc_cli.config.sections import Config, PredictConfig
from pplc_cli.exporting.current import exported_folder
from pplc_cli.predict.predictor import Predictor, load_predictor
from pplc_cli.training.runs.run_folder import RunFolder, find_run

CONFIGS, DATASETS = Path("configs"), Path("datasets")


def find_config(
    config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any], *, must_exist: tuple[str, ...] = ()
) -> Config:
    """The configuration of a command that works on a data set.

    Args:
        config: a YAML file.
        dataset: a folder, a name under datasets/, or the name of configs/NAME.yaml; used where no file is given.
        overrides: dotted keys from flags.
        must_exist: see :func:`pplc_cli.config.load.load_config`.

    Raises:
        DataError: neither was given, or the data set is nowhere.
        ConfigError: the file is not valid.
    """
    if config is not None:
        folder = {"data.dir": str(find_dataset(dataset))} if dataset else {}
        return load_config(config, {**folder, **overrides}, must_exist=must_exist)
    if dataset is None:
        have = (
            ", ".join(str(path) for path in sorted(CONFIGS.glob("*.y*ml"))) or "none in configs/ yet: pplc init FOLDER"
        )
        raise DataError(
            f"expected a configuration (--config FILE) or a data set (--dataset NAME); configurations: {have}"
        )
    named = CONFIGS / f"{dataset}.yaml"
    if named.is_file():
        return load_config(named, overrides, must_exist=must_exist)
    return load_config(None, {"data.dir": str(find_dataset(dataset)), **overrides}, must_exist=must_exist)


def find_dataset(name: str) -> Path:
    """The folder of a data set, from a path or a name under datasets/.

    Raises:
        DataError: there is none.
    """
    for path in (user_path(name), DATASETS / name):
        if path.is_dir():
            return path
    there = sorted(p.name for p in DATASETS.iterdir() if p.is_dir()) if DATASETS.is_dir() else []
    ending = did_you_mean(name, there) if there else ""
    raise DataError(f"no data set {name!r}: neither a folder nor a name under {DATASETS.absolute()}{ending}")


def find_trained(
    run: Optional[str], config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any]
) -> tuple[RunFolder, Config]:
    """The run that a command works on, and its configuration: the one named, else the configuration's, else the latest.

    Raises:
        PplcError: there is no such run, or the configuration is not valid.
    """
    if run is None and (config is not None or dataset is not None):
        found = find_config(config, dataset, overrides)
        return find_run(found.output), found
    trained = find_run(run)
    return trained, trained.load_config(dict(overrides))


def find_exported(
    model: Optional[str],
    run: Optional[str],
    config: Optional[str],
    dataset: Optional[str],
    overrides: Mapping[str, Any],
) -> tuple[Path, PredictConfig]:
    """The exported model's folder, the one named or a run's, and the settings to run it with.

    Raises:
        PplcError: there is none, or it was made from older weights than the run's best.
    """
    if model is not None:
        return user_path(model), check_config({"data": {"dir": "."}}, overrides, source="the options").predict
    trained, whole = find_trained(run, config, dataset, overrides)
    return exported_folder(trained), whole.predict


def find_predictor(
    model: Optional[str],
    run: Optional[str],
    config: Optional[str],
    dataset: Optional[str],
    overrides: Mapping[str, Any],
    *,
    features: bool = False,
) -> tuple[Predictor, PredictConfig]:
    """What :func:`find_exported` finds, loaded.

    Args:
        features: for embeddings.

    Raises:
        PplcError: there is none, it is outdated, or it cannot be loaded.
    """
    folder, settings = find_exported(model, run, config, dataset, overrides)
    return load_predictor(folder, settings, features=features), settings
