"""Read an exported folder: labels and preprocessing (``inference.yml`` of PaddleX), other facts (``pplc.json``)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from pplc_cli.base.errors import PredictError
from pplc_cli.base.storage.files import PathLike, recover_directory, user_path
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.predict.inference_yml import to_transforms

SIDECAR = "pplc.json"  # facts that inference.yml has no keys for


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """Labels and preprocessing of an exported folder.

    Attributes:
        folder: the folder.
        name: PaddleX's name of the network.
        labels: class names in the order of their ids.
        pipeline: turns decoded images into network input.
    """

    folder: Path
    name: str
    labels: list[str]
    pipeline: Pipeline


def read_exported(folder: PathLike) -> ExportedModel:
    """Read ``inference.yml``.

    Raises:
        PredictError: neither ``pplc export`` nor PaddleX 3 wrote the folder, or it is damaged.
    """
    folder = recover_directory(user_path(folder))
    path = folder / "inference.yml"
    if not folder.is_dir():
        raise PredictError(f"{folder}: no such folder; expected one that pplc export wrote")
    if not path.is_file():
        raise PredictError(f"{folder}: inference.yml is missing; expected a folder that pplc export wrote")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        labels = content["PostProcess"]["Topk"].get("label_list")
        steps = content["PreProcess"]["transform_ops"]
        transforms = [t for step in steps for t in to_transforms(step)]
        name = str((content.get("Global") or {}).get("model_name", ""))
        labels = [str(label) for label in labels or range(1000)]
        return ExportedModel(folder, name, labels, Pipeline(transforms, training=False))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())  # YAML errors span lines
        raise PredictError(
            f"{path}: is not a valid inference.yml of PaddleX 3: {type(error).__name__}: {reason}"
        ) from None


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The facts that ``pplc export`` recorded about a folder; empty for PaddleX's folders and damaged files."""
    try:
        return dict(json.loads((folder / SIDECAR).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def hash_model(folder: Path) -> str:
    """SHA-256 of the names and contents of the files ``inference*``."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("inference*")):
        total.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
