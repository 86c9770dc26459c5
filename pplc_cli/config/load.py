"""From a YAML file and overrides to a checked configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from pplc_cli.base.errors import ConfigError, PplcError
from pplc_cli.base.schema import read
from pplc_cli.config.checks import _check_meaning, _check_network, _check_paths, _check_transforms
from pplc_cli.config.sections import Config, DistillConfig, EvalConfig, ExportConfig, PredictConfig, TrainConfig
from pplc_cli.config.yaml_file import _parse, read_yaml
from pplc_cli.data.settings import DataConfig, SplitConfig
from pplc_cli.models.options import ModelConfig


def load_config(
    path: Union[str, Path, None] = None,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    must_exist: Sequence[str] = (),
) -> Config:
    """Read and check a configuration.

    Args:
        path: a YAML file; None starts from an empty one, so that the overrides are all there is.
        overrides: dotted key to value, applied over the file with the same checks.
        must_exist: dotted keys whose files or folders must be there: any of ``data.dir`` and ``model.pretrained``.

    Raises:
        ConfigError: with every fault found, not only the first.
    """
    source = str(path) if path is not None else "the options"
    raw = read_yaml(path) if path is not None else {}
    return check_config(raw, overrides, source=source, must_exist=must_exist)


def check_config(
    raw: Any,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    source: str = "config",
    must_exist: Sequence[str] = (),
) -> Config:
    """Check plain data as :func:`load_config` does with a file's."""
    faults: list[str] = []
    raw = _apply(raw, overrides or {}, faults)
    if isinstance(raw, dict) and "output" not in raw:
        folder = raw["data"].get("dir") if isinstance(raw.get("data"), Mapping) else None
        name = Path(folder.replace("\\", "/")).name if isinstance(folder, str) else ""
        raw["output"] = f"output/{'run' if name in ('', '..') else name}"
    config = read(Config, raw, "", faults)
    faults = [_hint_elsewhere(fault) for fault in faults]
    sections = raw if isinstance(raw, Mapping) else {}
    _check_transforms(sections, faults)
    _check_network(sections, faults)
    if config is not None:
        _check_meaning(config, faults)
        _check_paths(config, must_exist, faults)
    if faults or config is None:
        raise ConfigError(source, faults)
    return config


def parse_override(text: str) -> tuple[str, Any]:
    """``train.epochs=5`` as a dotted key and a YAML value.

    Raises:
        PplcError: there is no ``=``, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PplcError(f"-o {text}: expected key=value, as in -o train.epochs=5")
    try:
        return key.strip(), _parse(value)
    except (yaml.YAMLError, ValueError):
        raise PplcError(f"-o {text}: the value is not valid YAML") from None


def _apply(raw: Any, overrides: Mapping[str, Any], faults: list[str]) -> Any:
    """A copy of the raw mapping with the overrides set in it."""
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
                faults.append(f"{dotted}: {parent} holds a value, not keys")
                break
            node[parent] = dict(child)  # never the caller's own
            node = node[parent]
        else:
            node[last] = value
    return raw


def _hint_elsewhere(fault: str) -> str:
    """Point an unknown key at the section that does have a key of that name."""
    key, separator, _ = fault.partition(": unknown key")
    if not separator or "did you mean" in fault:
        return fault
    leaf = key.rpartition(".")[2]
    sections = {"data": DataConfig, "split": SplitConfig, "model": ModelConfig, "train": TrainConfig,
                "distill": DistillConfig, "eval": EvalConfig, "export": ExportConfig,
                "predict": PredictConfig}  # fmt: skip
    homes = [f"{name}.{leaf}" for name, cls in sections.items() if leaf in {f.name for f in dataclasses.fields(cls)}]
    return f"{key}: unknown key; did you mean {' or '.join(homes)}?" if homes else fault
