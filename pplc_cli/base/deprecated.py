"""Import paths of the previous release. They work for one more release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

MOVED = {"pplc_cli.accelerator": "pplc_cli.kernels"}


class _MovedModule(types.ModuleType):
    """A stand-in for a renamed module; it imports the new module at the first use of a name."""

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name, f"Moved to :mod:`{target}`.")
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks up optional attributes
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(self._target), name)
        message = f"{self.__name__} was renamed and will be removed in the next release: use {self._target}.{name}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return value


def register_moved_modules() -> None:
    """Make the old paths importable, without importing anything."""
    for old, new in MOVED.items():
        module = sys.modules.setdefault(old, _MovedModule(old, new))
        package, _, name = old.rpartition(".")
        setattr(sys.modules[package], name, module)
