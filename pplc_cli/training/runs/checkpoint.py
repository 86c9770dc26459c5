"""Save and load weights: safetensors files beside a JSON file, in folders that are replaced as a whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import CheckpointError, ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import describe, matches, show
from pplc_cli.base.storage.files import atomic_directory, read_failure, recover_directory, write_json
from pplc_cli.base.version import __version__
from pplc_cli.config.own_code import code_of
from pplc_cli.config.sections import Config
from pplc_cli.models.registry import find_network

FORMAT = 1
Arrays = dict[str, np.ndarray]
# Of the JSON files' values. Scores are left out: a loss may be infinite, which a schema refuses.
_TYPES: dict[str, Any] = {
    "network": str,
    "dropout": Optional[float],
    "options": dict[str, Any],
    "labels": list[str],
    "transforms": list[Any],
    "epoch": int,
    "sha256": dict[str, str],
    "best": Optional[dict[str, Any]],
    "stale_epochs": int,
    "fingerprint": str,
    "config": dict[str, Any],
}


def save(folder: Path, info: dict[str, Any], **files: Optional[Arrays]) -> None:
    """Write a folder of arrays with a JSON file that describes them.

    Args:
        folder: replaced as a whole, once everything is on disk.
        info: written to ``NAME.json``, where NAME is the first of ``files``.
        files: arrays by name; each becomes ``NAME.safetensors``. None is left out.

    Raises:
        PplcError: the folder cannot be written; the old one is unchanged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save as serialized

    with atomic_directory(folder) as temporary:
        hashes = {}
        for name, arrays in files.items():
            if arrays is not None:
                try:
                    data = serialized({key: np.asarray(value, order="C") for key, value in arrays.items()})
                except SafetensorError as error:
                    raise CheckpointError(tr("cannot write {folder}: {error}", folder=folder, error=error)) from None
                (temporary / f"{name}.safetensors").write_bytes(data)
                hashes[name] = hashlib.sha256(data).hexdigest()
        write_json(temporary / f"{next(iter(files))}.json", {"format": FORMAT, **info, "sha256": hashes})


def load_info(folder: Path, name: str) -> dict[str, Any]:
    """Read the JSON file beside the arrays.

    Raises:
        CheckpointError: it is missing or damaged, or its format is newer.
    """
    path = recover_directory(folder) / f"{name}.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = info["format"]
    except FileNotFoundError:
        raise CheckpointError(
            tr("{path}: no such file; was {folder} written by pplc train?", path=path, folder=folder)
        ) from None
    except OSError as error:
        raise CheckpointError(read_failure(path, error)) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(tr("{path} is damaged: {error}", path=path, error=error)) from None
    if not isinstance(version, int):
        raise CheckpointError(tr("{path} is damaged: format is {version!r}", path=path, version=version))
    if version > FORMAT:
        raise CheckpointError(tr("{path} was written by a newer pplc; update with: pip install -U pplc", path=path))
    for key, hint in _TYPES.items():
        if key in info and not matches(info[key], hint):
            raise CheckpointError(
                tr(
                    "{path} is damaged: {key}: expected {hint}, got {shown}",
                    path=path,
                    key=key,
                    hint=describe(hint, {}),
                    shown=show(info[key]),
                )
            )
    if name not in info.get("sha256", {name: ""}):
        raise CheckpointError(
            tr("{path} is damaged: it records no SHA-256 of {name}.safetensors", path=path, name=name)
        )
    return info


def require(info: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Check that the JSON of a folder has keys.

    Raises:
        CheckpointError: one is missing.
    """
    for key in keys:
        if key not in info:
            raise CheckpointError(tr("{folder} is damaged: its JSON file has no {key!r}", folder=folder, key=key))


def load_arrays(folder: Path, name: str) -> Optional[Arrays]:
    """Read arrays that :func:`save` wrote; None if the folder has no such file.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or differs from the one that was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = recover_directory(folder) / f"{name}.safetensors"
    try:
        data = path.read_bytes()  # safetensors would report a missing permission as a missing file
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(read_failure(path, error)) from None
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(tr("{path} is damaged: {error}", path=path, error=error)) from None
    if _written_hash(path) not in (None, hashlib.sha256(data).hexdigest()):
        raise CheckpointError(tr("{path} is damaged: its SHA-256 differs from the one that was recorded", path=path))
    return arrays


def _written_hash(path: Path) -> Optional[str]:
    """The SHA-256 that the folder's JSON records for a file of arrays, or None."""
    for info in path.parent.glob("*.json"):
        try:
            return str(json.loads(info.read_text(encoding="utf-8"))["sha256"][path.stem])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def load_network(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Rebuild a trained network from its folder.

    Args:
        folder: ``best_model``, or a folder of the same form.

    Returns:
        The network in evaluation mode, and ``model.json``.

    Raises:
        CheckpointError: the folder is missing or damaged.
    """
    from pplc_cli.data.transforms.pipeline import Pipeline
    from pplc_cli.models.options import ModelOptions
    from pplc_cli.models.registry import build_network, find_network
    from pplc_cli.models.weights.fit import fit_weights

    info = load_info(folder, "model")
    require(info, ("network", "dropout", "labels", "transforms", "epoch", "sha256"), folder)
    weights = load_arrays(folder, "model")
    if weights is None:
        raise CheckpointError(tr("{folder}: model.safetensors is missing", folder=folder))
    try:
        spec = find_network(str(info["network"]))
        check_code(str(folder), info.get("code"), {spec.name: spec.code})
        dropout = None if info["dropout"] is None else float(info["dropout"])
        options = ModelOptions(**info.get("options", {}))
        network = build_network(spec.name, len(info["labels"]), dropout=dropout, options=options)
        Pipeline(info["transforms"], training=False)  # only checked here
        replaced = fit_weights(network, weights, str(folder), spec.classifier)
    except ModelError as error:
        raise CheckpointError(tr("{path}: {reason}", path=folder, reason=error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(tr("{folder} is damaged: {error}", folder=folder, error=error)) from None
    if replaced:
        raise CheckpointError(
            tr(
                "{folder}: model.json has {count} classes, the weights have another number",
                folder=folder,
                count=len(info["labels"]),
            )
        )
    network.eval()
    return network, info


def check_code(where: str, recorded: Any, current: Mapping[str, Optional[str]]) -> None:
    """Check that the user's own code is that of the training.

    Args:
        where: the run, for the error.
        recorded: ``code`` of ``model.json``: the SHA-256 of its file by the name that uses it.
        current: the same of the code that is loaded; None: not known, as for code that Python registered.

    Raises:
        CheckpointError: a file has changed.
    """
    known = recorded if isinstance(recorded, dict) else {}
    for name, code in current.items():
        if code is not None and known.get(name, code) != code:
            raise CheckpointError(
                tr(
                    "{where}: the file of {name} has changed since the training; restore it, or train again "
                    "with --force",
                    where=where,
                    name=name,
                )
            )


def model_info(config: Config, labels: Sequence[str]) -> dict[str, Any]:
    """The description in ``model.json`` from which :func:`load_network` rebuilds the network, without the scores."""
    return {
        "pplc": __version__,
        "network": find_network(config.model.name).name,
        "dropout": config.model.dropout,
        "options": dataclasses.asdict(config.model.options),
        "labels": list(labels),
        "transforms": config.eval.transforms,
        "code": code_of(config),
    }


def network_arrays(network: Any) -> Arrays:
    """Copy a network's parameters and buffers, by their structured names."""
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}
