"""Find the network that a command-line argument names: by its name, run, exported folder or Python file."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from pathlib import Path
from typing import Any, Optional

import yaml

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path, write_text
from pplc_cli.config.own_code import line_of, run_file
from pplc_cli.config.sections import DEFAULT_EVAL_TRANSFORMS
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.current import exported_folder
from pplc_cli.exporting.formats import ExportOptions, write_formats
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.predict.inference_yml import build_inference_yml
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import RunFolder, find_run

CLASSES = 1000  # of a network given by its name
_PACKAGES = {"paddle": ["paddle"], "onnx": ["onnx"], "openvino": ["onnx", "openvino"]}  # needed to write each format


@dataclasses.dataclass(frozen=True)
class ExportedTarget:
    """An exported folder to measure.

    Attributes:
        name: the argument, or the latest run's folder.
        folder: the exported folder.
        size: height and width of its images.
    """

    name: str
    folder: Path
    size: tuple[int, int]


def find_network_target(text: str) -> tuple[str, Any]:
    """Load or build the network that an argument of ``pplc profile`` or ``pplc compare`` names.

    Args:
        text: a network's name (built with random weights), a run's folder, or ``FILE.py`` or ``FILE.py:CLASS`` with a
            ``paddle.nn.Layer`` whose constructor needs no arguments, or only ``num_classes``. The file is
            executed.

    Returns:
        A name to print, and the network.

    Raises:
        ModelError: the argument matches nothing, or the file or its class fails; the message gives the line.
    """
    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if file.endswith(".py"):
        return _from_file(user_path(file), name)
    folder = user_path(text)
    if folder.is_dir():
        network, _ = load_network(RunFolder(folder).best)
        return folder.name, network
    try:
        spec = find_network(text)
    except ModelError as error:
        raise ModelError(tr("{error}; or name a run's folder or a Python file with a network", error=error)) from None
    return spec.name, build_network(spec.name, CLASSES)


def find_exported_target(text: Optional[str], scratch: Path) -> ExportedTarget:
    """Find the exported folder that an argument of ``pplc bench`` names; export a network given by its name.

    Args:
        text: an exported folder, a run's folder, or a network's name; None: the latest run.
        scratch: a folder to create for the export of a network with random weights.

    Raises:
        PplcError: the argument matches nothing, or the run is not exported.
    """
    if text is None:
        run = find_run()
        return _target(str(run.folder), exported_folder(run))
    folder = user_path(text)
    if (folder / "inference.yml").is_file():
        return _target(text, folder)
    if folder.is_dir():
        return _target(text, exported_folder(find_run(folder)))
    return _target(_export_untrained(text, scratch), scratch)


def _target(name: str, folder: Path) -> ExportedTarget:
    return ExportedTarget(name, folder, read_exported(folder).pipeline.size)


def _export_untrained(text: str, folder: Path) -> str:
    """Export a network with random weights in every format that the installed packages can write."""
    try:
        spec = find_network(text)
    except ModelError as error:
        raise ModelError(tr("{error}; or name an exported folder or a run", error=error)) from None
    network = build_network(spec.name, CLASSES)
    network.eval()
    size = Pipeline(DEFAULT_EVAL_TRANSFORMS, training=False).size
    formats = [name for name, packages in _PACKAGES.items() if all(map(importlib.util.find_spec, packages))]
    folder.mkdir()
    write_formats(network, ExportOptions(size), formats, folder)
    labels = [str(number) for number in range(CLASSES)]
    content = build_inference_yml(spec.paddlex or spec.name, labels, DEFAULT_EVAL_TRANSFORMS, size)
    write_text(folder / "inference.yml", yaml.safe_dump(content, sort_keys=False))
    return spec.name


def _from_file(path: Path, name: str) -> tuple[str, Any]:
    import paddle

    if not path.is_file():
        raise ModelError(tr("{path}: no such file", path=path))
    module = run_file(path)
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, paddle.nn.Layer) and value.__module__ == module.__name__
    }
    if not name and len(classes) > 1:
        # Blocks are usually defined before the network that uses them, so suggest the last class.
        raise ModelError(
            tr(
                "{path} has {count} networks: name one, as in {path}:{example}",
                path=path,
                count=len(classes),
                example=list(classes)[-1],
            )
        )
    if name and name not in classes:
        raise ModelError(
            tr(
                "{path} has no network {name!r}; it has {names}",
                path=path,
                name=name,
                names=", ".join(classes) or tr("none"),
            )
        )
    if not classes:
        raise ModelError(tr("{path} has no subclass of paddle.nn.Layer", path=path))
    name = name or next(iter(classes))
    try:
        parameter = inspect.signature(classes[name]).parameters.get("num_classes")
        required = parameter is not None and parameter.default is parameter.empty  # as a network for training has it
        return name, classes[name](num_classes=CLASSES) if required else classes[name]()
    except Exception as error:
        raise ModelError(
            tr(
                "{path}: {name}() fails: {line}{kind}: {error}",
                path=path,
                name=name,
                line=line_of(error, path),
                kind=type(error).__name__,
                error=error,
            )
        ) from error
