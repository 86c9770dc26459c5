"""Mutated configurations, read in a child process with bounded memory and time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits of a process need a Unix system")
DRIVER = Path(__file__).with_name("fuzz_yaml.py")


@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(1000, 1, marks=pytest.mark.slow)])
def test_mutated_configurations_are_read_or_refused(tmp_path: Path, count: int, seed: int) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_yaml", DRIVER)
    assert spec is not None and spec.loader is not None
    fuzz_yaml = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz_yaml)
    result = fuzz_yaml.run(count, seed, tmp_path)
    assert result["valid"] + result["refused"] == count
    assert result["valid"] > count // 50 and result["refused"] > count // 4
    assert result["megabytes"] < 600
