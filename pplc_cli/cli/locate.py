"""Find the configuration, data set, run or exported folder that the options name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

from pplc_cli.base.errors import DataError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.base.storage.files import user_path
from pplc_cli.cli.command import note
from pplc_cli.cli.options import SAMPLES
from pplc_cli.config.load import check_config, load_config
from pplc_cli.config.sections import Config, PredictConfig
from pplc_cli.exporting.current import exported_folder
from pplc_cli.predict.predictor import Predictor, load_predictor
from pplc_cli.training.runs.run_folder import RunFolder, find_run, latest_run

CONFIGS, DATASETS = Path("configs"), Path("datasets")


def find_config(
    config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any], *, must_exist: tuple[str, ...] = ()
) -> Config:
    """Load the configuration of a command that works on a data set.

    Args:
        config: a YAML file.
        dataset: with ``config``, the folder with the images; without it, NAME of configs/NAME.yaml, else a folder, else
            a name under datasets/.
        overrides: dotted keys and their values.
        must_exist: see :func:`pplc_cli.config.load.load_config`.

    Raises:
        DataError: neither was given, or there is no such data set.
        ConfigError: the file is not valid.
    """
    if config is not None:
        if Path(config).stem in SAMPLES and not user_path(config).exists():
            raise DataError(
                tr(
                    "{config}: no such file; draw the sample data set first: pplc sample {name}",
                    config=config,
                    name=Path(config).stem,
                )
            )
        folder = {"data.dir": str(find_dataset(dataset))} if dataset else {}
        return _load(config, {**folder, **overrides}, must_exist)
    if dataset is None:
        found = ", ".join(str(path) for path in sorted(CONFIGS.glob("*.y*ml")))
        if found:
            raise DataError(
                tr(
                    "expected a configuration (--config FILE) or a data set (--dataset NAME); configurations: {files}",
                    files=found,
                )
            )
        raise DataError(
            tr(
                "expected a configuration (--config FILE) or a data set (--dataset NAME); configurations: none in "
                "configs/, create one with: pplc init FOLDER"
            )
        )
    named = CONFIGS / f"{dataset}.yaml"
    if named.is_file():
        return _load(named, overrides, must_exist)
    return load_config(None, {"data.dir": str(find_dataset(dataset)), **overrides}, must_exist=must_exist)


def _load(file: Union[str, Path], overrides: Mapping[str, Any], must_exist: tuple[str, ...]) -> Config:
    """Load a configuration. If its data folder does not exist, another place of the same name may have it."""
    wanted = load_config(file, overrides).data.dir
    if not user_path(wanted).is_dir():
        name = user_path(wanted).name
        found = find_dataset(name) if name in SAMPLES and "data.dir" in must_exist else _place_of(name)
        if found is not None:
            note(
                tr(
                    "there is no folder {wanted}, which {file} names; using {found}",
                    wanted=wanted,
                    file=file,
                    found=found,
                )
            )
            overrides = {**overrides, "data.dir": str(found)}
    return load_config(file, overrides, must_exist=must_exist)


def _place_of(name: str) -> Optional[Path]:
    return next((path for path in (user_path(name), DATASETS / name) if name and path.is_dir()), None)


def find_recipe(config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any], *, resume: bool) -> Config:
    """Load the configuration to train with; to resume, that of the latest run if none is named.

    Raises:
        PplcError: there is none, or it is not valid.
    """
    if resume and config is None and dataset is None and "output" not in overrides:
        run = short(latest_run())
        note(tr("resuming {folder}", folder=run.folder))
        return run.load_config(dict(overrides))
    return find_config(config, dataset, overrides, must_exist=("data.dir", "model.pretrained"))


def find_dataset(name: str) -> Path:
    """Find the folder of a data set by its path or its name under datasets/.

    Raises:
        DataError: there is no such folder.
    """
    found = _place_of(name)
    if found is not None:
        return found
    if name in SAMPLES:
        raise DataError(
            tr(
                "no data set {name!r}: put photographs into {datasets}, or run: pplc sample {name}",
                name=name,
                datasets=DATASETS / name,
            )
        )
    names = sorted(p.name for p in DATASETS.iterdir() if p.is_dir()) if DATASETS.is_dir() else []
    suggestion = did_you_mean(name, names) if names else ""
    raise DataError(
        tr(
            "no data set {name!r}: expected a folder, or a name under {datasets}/{suggestion}",
            name=name,
            datasets=DATASETS,
            suggestion=suggestion,
        )
    )


def find_latest_run() -> RunFolder:
    """Find the latest run, and say which it is.

    Raises:
        CheckpointError: there is none.
    """
    run = short(find_run())
    note(tr("run: {folder}", folder=run.folder))
    return run


def short(run: RunFolder) -> RunFolder:
    """The run, its path relative to the current folder if it lies below it."""
    here = Path.cwd()
    return RunFolder(run.folder.relative_to(here)) if here in run.folder.parents else run


def find_trained(
    run: Optional[str], config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any]
) -> tuple[RunFolder, Config]:
    """Find the run of a command and its configuration: the named run, else the configuration's, else the latest.

    Raises:
        PplcError: there is no such run, the configuration is not valid, or a run and a configuration are both named.
    """
    _one_place(run, config, dataset)
    if run is None and (config is not None or dataset is not None):
        found = find_config(config, dataset, overrides)
        return find_run(found.output), found
    trained = find_run(run) if run is not None else find_latest_run()
    return trained, trained.load_config(dict(overrides))


def _one_place(run: Optional[str], config: Optional[str], dataset: Optional[str]) -> None:
    """Refuse a run together with a configuration.

    Raises:
        PplcError: both are named.
    """
    if run is not None and (config is not None or dataset is not None):
        raise PplcError(
            tr(
                "--run cannot be combined with --config or --dataset: a run has its own configuration; "
                "change values with -o, measure other images with pplc eval --data FOLDER"
            )
        )


def find_folds(run: Optional[str], config: Optional[str], dataset: Optional[str], overrides: Mapping[str, Any]) -> Path:
    """Find the folder of ``pplc train --folds``: the named one, else the configuration's, else the latest.

    Raises:
        PplcError: see :func:`find_trained`.
    """
    from pplc_cli.tuning.ensemble import folds_folder

    _one_place(run, config, dataset)
    if run is not None:
        return folds_folder(user_path(run))
    if config is not None or dataset is not None:
        return folds_folder(user_path(find_config(config, dataset, overrides).output))
    folder = folds_folder(short(find_run()).folder)
    note(tr("folds: {folder}", folder=folder))
    return folder


def find_exported(
    model: Optional[str],
    run: Optional[str],
    config: Optional[str],
    dataset: Optional[str],
    overrides: Mapping[str, Any],
) -> tuple[Path, PredictConfig]:
    """Find the exported folder, by its path or in a run, and the settings to run it with.

    Raises:
        PplcError: there is none, or the run's best weights are newer.
    """
    if model is not None:
        return user_path(model), check_config({"data": {"dir": "."}}, overrides, source=tr("the options")).predict
    trained, settings = find_trained(run, config, dataset, overrides)
    return exported_folder(trained), settings.predict


def find_predictor(
    model: Optional[str],
    run: Optional[str],
    config: Optional[str],
    dataset: Optional[str],
    overrides: Mapping[str, Any],
    *,
    features: bool = False,
) -> tuple[Predictor, PredictConfig]:
    """Load the model that :func:`find_exported` finds.

    Args:
        features: whether to predict embeddings.

    Raises:
        PplcError: there is none, the run's best weights are newer, or it cannot be loaded.
    """
    folder, settings = find_exported(model, run, config, dataset, overrides)
    return load_predictor(folder, settings, features=features), settings
