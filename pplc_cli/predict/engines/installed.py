"""Which engines are installed, and how to install the others."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr

_PACKAGES = {
    "paddle": "paddle",
    "pplc": "numba",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paddlex": "paddlex",
}
_EXTRAS = {"onnxruntime": "'pplc[onnxruntime]'", "openvino": "'pplc[openvino]'"}  # the other packages come with pplc


def not_installed(name: str) -> str:
    """The message for an engine whose package is missing."""
    return tr(
        "the engine {name} is not installed; install it with: pip install {package}",
        name=name,
        package=_EXTRAS.get(name, "pplc"),
    )


def require(name: str) -> None:
    """Check an engine's package before anything else, since the extra that it names brings all packages it needs.

    Raises:
        PredictError: it is not installed.
    """
    if not _is_installed(_PACKAGES[name]):
        raise PredictError(not_installed(name))


def installed() -> dict[str, Optional[str]]:
    """Map each engine to None if it is installed, else to a message with the install command; imports no package."""
    return {name: None if _is_installed(package) else not_installed(name) for name, package in _PACKAGES.items()}


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
