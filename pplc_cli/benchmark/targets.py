"""What profile and compare are asked to look at: a network's name, a run, or a Python file of the user's."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path
from typing import Any

from pplc_cli.base.errors import ModelError
from pplc_cli.base.files import user_path
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.training.runs.run_folder import RunFolder

CLASSES = 1000  # of networks that no run has given others


def find_target(text: str) -> tuple[str, Any]:
    """A name to show and the network, with random weights where it is not a run.

    Args:
        text: a network of the zoo, a run's folder, or ``FILE.py`` or ``FILE.py:CLASS`` with a ``paddle.nn.Layer`` that
            can be made without arguments. The file is run.

    Raises:
        ModelError: there is no such thing, or the file or its class fails; the text says where.
    """
    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if file.endswith(".py"):
        return _from_file(user_path(file), name)
    folder = user_path(text)
    if folder.is_dir():
        from pplc_cli.training.runs.checkpoint import load_network

        network, _ = load_network(RunFolder(folder).best)
        return folder.name, network
    try:
        spec = find_network(text)
    except ModelError as error:
        raise ModelError(f"{error}; or name a run's folder or a Python file with a network") from None
    return spec.name, build_network(spec.name, CLASSES)


def _from_file(path: Path, name: str) -> tuple[str, Any]:
    import paddle

    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"pplc_target_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ModelError(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from None
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, paddle.nn.Layer) and value.__module__ == module.__name__
    }
    if not name and len(classes) > 1:
        # What is used by another class in the file is a part; the last one defined is usually the whole.
        raise ModelError(f"{path} has {len(classes)} networks: name one, as in {path}:{list(classes)[-1]}")
    if name and name not in classes:
        raise ModelError(f"{path} has no network {name!r}; it has {', '.join(classes) or 'none'}")
    if not classes:
        raise ModelError(f"{path} has no class that is a paddle.nn.Layer")
    name = name or next(iter(classes))
    try:
        return name, classes[name]()
    except Exception as error:
        raise ModelError(f"{path}: {name}() fails: {_where(error, path)}{type(error).__name__}: {error}") from None


def _where(error: Exception, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""
