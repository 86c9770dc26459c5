"""Load a configuration from a YAML file and overrides, and check it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from pplc_cli.base.errors import ConfigError, PplcError, is_about
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type, read
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.config.checks import check_combinations, check_network, check_paths, check_transforms_of
from pplc_cli.config.own_code import load_own_code
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import parse_yaml, read_yaml


def load_config(
    path: Optional[PathLike] = None,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    must_exist: Sequence[str] = (),
) -> Config:
    """Read and check a configuration.

    A network or a transform that it names as ``mine.py:Net`` is loaded, that is, the file is run. Do not load the
    configuration of somebody you do not trust.

    Args:
        path: a YAML file; None: the overrides alone.
        overrides: values by dotted key, which replace those of the file and pass the same checks.
        must_exist: keys whose files and folders must exist: ``data.dir``, ``model.pretrained`` or both.

    Raises:
        TypeError: an argument has another type.
        ConfigError: lists all faults.
    """
    expect_type("path", path, str, os.PathLike, type(None))
    expect_type("overrides", overrides, Mapping, type(None))
    source = str(path) if path is not None else tr("the options")
    raw = read_yaml(path) if path is not None else {}
    folder = user_path(path).parent if path is not None else Path()
    return check_config(raw, overrides, source=source, must_exist=must_exist, code_from=folder)


def as_config(config: Union[Config, Mapping[str, Any], PathLike]) -> Config:
    """Return a configuration; one given as plain data or as a file is read and checked like a file.

    Raises:
        TypeError: it is none of these.
        ConfigError: it is not valid.
    """
    expect_type("config", config, Config, Mapping, str, os.PathLike)
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return check_config(config, code_from=Path())
    return load_config(config)


def check_config(
    raw: Any,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    source: str = "config",
    must_exist: Sequence[str] = (),
    code_from: Optional[Path] = None,
) -> Config:
    """Check plain data in the same way as :func:`load_config` checks the content of a file.

    Args:
        raw: the plain data.
        overrides: values by dotted key, which replace those of the data.
        source: where the data comes from, for errors.
        must_exist: keys whose files and folders must exist.
        code_from: the folder of files of code that the data names (``mine.py:Net``), which are run; None: none are run.

    Raises:
        ConfigError: lists all faults.
    """
    faults: list[str] = []
    raw = _apply(raw, overrides or {}, faults)
    if isinstance(raw, dict) and "output" not in raw:
        folder = raw["data"].get("dir") if isinstance(raw.get("data"), Mapping) else None
        name = Path(folder.replace("\\", "/")).name if isinstance(folder, str) else ""
        raw["output"] = f"output/{'run' if name in ('', '..') else name}"
    config = read(Config, raw, "", faults)
    sections = raw if isinstance(raw, Mapping) else {}
    if code_from is not None:
        load_own_code(sections, code_from, faults)
    check_transforms_of(sections, faults)
    check_network(sections, faults)
    if config is not None:
        check_combinations(config, faults)
        check_paths(config, must_exist, faults)
    if faults or config is None:
        raise ConfigError(tr("the options") if _all_from(overrides or {}, faults) else source, faults)
    return _with_normalization(config)


def _with_normalization(config: Config) -> Config:
    """Give each ``Normalize`` without values those with which the network's published weights were trained."""
    from pplc_cli.models.registry import IMAGENET, find_network, in_file

    if in_file(config.model.name):
        return config
    spec = find_network(config.model.name)
    if spec.normalization == IMAGENET:
        return config  # the transform's own values
    mean, std = (list(values) for values in spec.normalization)

    def resolved(transforms: list[Any]) -> list[Any]:
        bare: tuple[Any, ...] = ("Normalize", {"Normalize": None}, {"Normalize": {}})
        return [{"Normalize": {"mean": mean, "std": std}} if each in bare else each for each in transforms]

    train = dataclasses.replace(config.train, transforms=resolved(config.train.transforms))
    evaluation = dataclasses.replace(config.eval, transforms=resolved(config.eval.transforms))
    return dataclasses.replace(config, train=train, eval=evaluation)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``train.epochs=5`` into the dotted key and the YAML value.

    Raises:
        PplcError: there is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PplcError(tr("-o {text}: expected key=value, as in -o train.epochs=5", text=text))
    try:
        return key.strip(), parse_yaml(value)
    except (yaml.YAMLError, ValueError):
        raise PplcError(tr("-o {text}: the value is not valid YAML", text=text)) from None


def _apply(raw: Any, overrides: Mapping[str, Any], faults: list[str]) -> Any:
    """Copy the raw mapping and set the overrides in the copy."""
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        return raw
    raw = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = raw
        for parent in parents:
            child = node.get(parent)
            child = {} if child is None else child
            if not isinstance(child, Mapping):
                faults.append(tr("{key}: {parent} has a value, not keys", key=dotted, parent=parent))
                break
            node[parent] = dict(child)  # a copy: the caller's mapping must not change
            node = node[parent]
        else:
            node[last] = value
    return raw


def _all_from(overrides: Mapping[str, Any], faults: Sequence[str]) -> bool:
    """Whether overrides caused all faults."""
    return bool(overrides) and all(any(is_about(fault, key) for key in overrides) for fault in faults)
