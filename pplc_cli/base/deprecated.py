"""Import paths of the last release, which keep working for one more with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

MOVED = {"pplc_cli.accelerator": "pplc_cli.kernels"}


class _MovedModule(types.ModuleType):
    """Takes its names from the module's new place, which is imported when the first of them is used."""

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name, f"Moved to :mod:`{target}`.")
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for some that plain modules need not have
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
