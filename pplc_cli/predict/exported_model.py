"""Read an exported folder's labels and preprocessing, from ``inference.yml`` of PaddleX."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import yaml

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded
from pplc_cli.base.storage.files import PathLike, recover_directory, user_path
from pplc_cli.config.yaml_file import parse_yaml
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.kernels.graph.validate import MAX_CHANNELS
from pplc_cli.predict.inference_yml import read_steps
from pplc_cli.predict.records import check_files

LARGEST_YML = 1 << 22  # bytes; the 21,841 labels of ImageNet-21k take one and a half million


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
    """Read ``inference.yml``, and check the folder's files against the records of ``pplc export``.

    Raises:
        PredictError: neither ``pplc export`` nor PaddleX 3 wrote the folder, or it is damaged.
    """
    folder = recover_directory(user_path(folder))
    path = folder / "inference.yml"
    if not folder.is_dir():
        raise PredictError(tr("{folder}: no such folder; expected one that pplc export wrote", folder=folder))
    if not path.exists():
        raise PredictError(
            tr("{folder}: inference.yml is missing; expected a folder that pplc export wrote", folder=folder)
        )
    check_files(folder)
    try:
        content = parse_yaml(read_bounded(path, LARGEST_YML).decode("utf-8"))
        labels = _labels(content["PostProcess"]["Topk"].get("label_list"))
        transforms = read_steps(content["PreProcess"]["transform_ops"])
        name = str((content.get("Global") or {}).get("model_name", ""))
        return ExportedModel(folder, name, labels, Pipeline(transforms, training=False))
    except OSError as error:
        raise PredictError(tr("{path}: cannot be read: {reason}", path=path, reason=error.strerror)) from None
    except (ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:300]  # YAML errors span lines
        raise PredictError(
            tr(
                "{path}: is not a valid inference.yml of PaddleX 3: {kind}: {reason}",
                path=path,
                kind=type(error).__name__,
                reason=reason,
            )
        ) from None


def _labels(raw: Any) -> list[str]:
    """The labels of a ``label_list``; those of ImageNet-1k occur twice in some places, so labels may be equal."""
    if raw is None:
        return [str(number) for number in range(1000)]
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_CHANNELS:
        raise ValueError(tr("label_list: expected a list of 1 to {limit} labels", limit=MAX_CHANNELS))
    for number, label in enumerate(raw):
        if label is None or isinstance(label, (list, dict)) or not str(label).strip():
            raise ValueError(tr("label_list: label {number} is empty, or no text", number=number))
        str(label).encode()  # half a pair of surrogates is a ValueError
    return [str(label) for label in raw]


def check_outputs(model: ExportedModel, outputs: int) -> None:
    """Check that a network has as many outputs as the model has labels.

    Raises:
        PredictError: it has fewer or more.
    """
    if outputs != len(model.labels):
        raise PredictError(
            tr(
                "{folder}: the network has {outputs} classes, but inference.yml has {count} labels; "
                "expected one label per class, in the order of their ids",
                folder=model.folder,
                outputs=outputs,
                count=len(model.labels),
            )
        )


def hash_model(folder: Path) -> str:
    """SHA-256 of the names and contents of the files ``inference*``."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("inference*")):
        total.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
