"""What ``pplc bench`` is asked to measure: an exported folder, a run, or a network of the zoo."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Optional

import yaml

from pplc_cli.base.errors import ModelError
from pplc_cli.base.files import user_path, write_text
from pplc_cli.config.sections import DEFAULT_EVAL_TRANSFORMS
from pplc_cli.exporting.current import exported_folder
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.training.runs.run_folder import find_run

_NEEDS = {"paddle": ["paddle"], "onnx": ["onnx"], "openvino": ["onnx", "openvino"]}


@dataclasses.dataclass(frozen=True)
class Model:
    """An exported folder to measure.

    Attributes:
        name: to show: the word that asked for it.
        folder: where it lies.
        size: height and width of its images.
    """

    name: str
    folder: Path
    size: tuple[int, int]


def find_model(text: Optional[str], scratch: Path) -> Model:
    """From a word to an exported folder.

    Args:
        text: an exported folder, a run's folder, or a network's name; None: the latest run.
        scratch: an empty folder that does not exist yet, where a network of the zoo is exported with random weights.

    Raises:
        PplcError: there is no such thing, or the run is not exported.
    """
    if text is None:
        run = find_run()
        return _model(str(run.folder), exported_folder(run))
    folder = user_path(text)
    if (folder / "inference.yml").is_file():
        return _model(text, folder)
    if folder.is_dir():
        return _model(text, exported_folder(find_run(folder)))
    return _model(_export(text, scratch), scratch)


def _model(name: str, folder: Path) -> Model:
    return Model(name, folder, read_exported(folder).pipeline.size)


def _export(text: str, folder: Path) -> str:
    """Write a network of the zoo, with random weights, in every format that installed packages write."""
    from pplc_cli.benchmark.targets import CLASSES
    from pplc_cli.data.transforms.pipeline import Pipeline
    from pplc_cli.exporting.formats import ExportOptions, write_formats
    from pplc_cli.models.registry import build_network, find_network
    from pplc_cli.predict.inference_yml import build_inference_yml as description

    try:
        spec = find_network(text)
    except ModelError as error:
        raise ModelError(f"{error}; or name an exported folder or a run") from None
    network = build_network(spec.name, CLASSES)
    network.eval()
    size = Pipeline(DEFAULT_EVAL_TRANSFORMS, training=False).size
    formats = [name for name, packages in _NEEDS.items() if all(map(importlib.util.find_spec, packages))]
    folder.mkdir()
    write_formats(network, ExportOptions(size), formats, folder)
    labels = [str(number) for number in range(CLASSES)]
    content = description(spec.paddlex or spec.name, labels, DEFAULT_EVAL_TRANSFORMS, size)
    write_text(folder / "inference.yml", yaml.safe_dump(content, sort_keys=False))
    return spec.name
