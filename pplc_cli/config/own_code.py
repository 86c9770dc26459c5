"""Networks and transforms in Python files that a configuration names, as in ``mine.py:Net``.

This is the only place where pplc runs code that a file names, and only for a file that the user passes: the
configuration of a run folder or of an exported folder is never enough.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ModelError, PplcError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.storage.files import user_path
from pplc_cli.config.sections import Config
from pplc_cli.data.settings import MAX_THREADS
from pplc_cli.data.transforms.registry import register_transform, transform_code
from pplc_cli.models.registry import find_network, in_file, register_network

_LOADED: dict[str, Path] = {}  # the file of each name


def load_own_code(raw: Mapping[str, Any], folder: Path, faults: list[str]) -> None:
    """Register the networks and transforms that a raw configuration names by file.

    Args:
        raw: the sections of the configuration as plain data.
        folder: relative files are relative to it.
        faults: every fault is appended to this list.
    """
    if any(_names(raw)):
        load_paddle(_threads(raw))  # with pplc's settings, before the code imports it
    for key, name in _names(raw):
        path = folder / user_path(name.rpartition(":")[0])
        try:
            _register(key, name, path)
        except OSError as error:
            faults.append(
                tr(
                    "{key}: {name}: {path} cannot be read: {reason}",
                    key=key,
                    name=name,
                    path=path,
                    reason=error.strerror,
                )
            )
        except (PplcError, TypeError, ValueError, NameError) as error:  # Python's own for type hints and signatures
            faults.append(tr("{key}: {name}: {reason}", key=key, name=name, reason=error))


def load_files(raw: Any, files: Mapping[str, str]) -> None:
    """Register what another process of the same training has loaded; see :func:`loaded_files`."""
    for key, name in _names(raw):
        if name in files:
            load_paddle(_threads(raw))
            _register(key, name, Path(files[name]))


def loaded_files() -> dict[str, str]:
    """The absolute file of each name that was loaded, for other processes of the same training."""
    return {name: str(path) for name, path in _LOADED.items()}


def code_of(config: Config) -> dict[str, str]:
    """The SHA-256 of each file of code that a configuration uses, by the name that uses it."""
    names = dict(_names(config.to_dict()))
    codes = {
        name: find_network(name).code if key == "model.name" else transform_code(name) for key, name in names.items()
    }
    return {name: code for name, code in codes.items() if code is not None}


def _register(key: str, name: str, path: Path) -> None:
    """Run the file of a name, and register what it defines.

    Raises:
        OSError: the file cannot be read.
        PplcError: its code fails or lacks the name, or another file has the name.
        TypeError: it defines no network or transform.
    """
    path = path.resolve()
    if _LOADED.get(name, path) != path:
        raise PplcError(tr("{path} already has this name; rename one of the files", path=_LOADED[name]))
    code = hashlib.sha256(path.read_bytes()).hexdigest()
    member = getattr(run_file(path), name.rpartition(":")[2], None)
    if member is None:
        raise PplcError(tr("{path} does not define it", path=path))
    register = register_network if key == "model.name" else register_transform
    register(name, member, code=code)
    _LOADED[name] = path


def _names(raw: Any) -> Iterator[tuple[str, str]]:
    """The dotted key and the name of all code in files."""
    sections = raw if isinstance(raw, Mapping) else {}
    model, train = (sections.get(name) for name in ("model", "train"))
    network = model.get("name") if isinstance(model, Mapping) else None
    if isinstance(network, str) and in_file(network):
        yield "model.name", network
    transforms = train.get("transforms") if isinstance(train, Mapping) else None
    for index, item in enumerate(transforms if isinstance(transforms, list) else []):
        name = next(iter(item)) if isinstance(item, Mapping) and len(item) == 1 else item
        if isinstance(name, str) and in_file(name):
            yield f"train.transforms[{index}]", name


def _threads(raw: Mapping[str, Any]) -> Optional[int]:
    """``train.threads`` of a raw configuration, if it has a valid value."""
    train = raw.get("train")
    threads = train.get("threads") if isinstance(train, Mapping) else None
    return threads if isinstance(threads, int) and 1 <= threads <= MAX_THREADS else None


def run_file(path: Path) -> types.ModuleType:
    """Run a Python file as a module; the same content runs once.

    Raises:
        OSError: the file cannot be read.
        ModelError: an exception ends it; the message has the line.
    """
    content = path.read_bytes()
    name = f"pplc_own_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look up their module there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name]
        reason = f"{line_of(error, path)}{type(error).__name__}: {one_line(error)}"
        raise ModelError(tr("{path}: {reason}", path=path, reason=reason)) from error
    return module


def line_of(error: Exception, path: Path) -> str:
    """The start of a message with the last line of a file that an exception passed through; empty if there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = lines[-1] if lines else getattr(error, "lineno", None)  # a SyntaxError has the line itself
    return tr("line {line}: ", line=line) if line else ""
