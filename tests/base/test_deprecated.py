"""Import paths of the last release."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import pplc_cli
from pplc_cli import kernels


def test_the_old_module_gives_the_same_functions_and_warns():
    with pytest.warns(
        DeprecationWarning, match=r"pplc_cli\.accelerator was renamed.*use pplc_cli\.kernels\.accelerate"
    ):
        from pplc_cli.accelerator import accelerate  # type: ignore[import-not-found]
    assert accelerate is kernels.accelerate is pplc_cli.accelerate
    with pytest.warns(DeprecationWarning) as caught:
        assert pplc_cli.accelerator.restore is kernels.restore
    assert caught[0].filename == __file__


def test_other_names_are_missing_as_from_any_module():
    with pytest.raises(ImportError, match="no_such"):
        from pplc_cli.accelerator import no_such  # noqa: F401
    with pytest.raises(ImportError):
        importlib.import_module("pplc_cli.accelerator.plan")


def test_the_import_stays_light_and_silent():
    code = "import sys, pplc_cli, pplc_cli.accelerator; print(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"pplc_cli.kernels", "numpy", "numba", "paddle"} & set(loaded)
