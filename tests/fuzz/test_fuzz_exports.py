"""A bounded run of the mutations of exported folders; see exports.py for longer ones."""

from __future__ import annotations

import sys

import pytest

from fuzz.exports import fuzz
from pplc_cli.kernels import unsupported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the memory of its children"),
]


@pytest.mark.parametrize(("engine", "count"), [("pplc", 150), ("paddle", 40)])
def test_mutated_exports_are_answered_or_refused_in_one_line(untrained, tmp_path, engine, count):
    if engine == "pplc" and unsupported() is not None:
        pytest.skip(str(unsupported()))
    outcomes, faults = fuzz(untrained(0), count, engine, seed=0, keep=tmp_path)
    assert not faults
    assert any(name.endswith("error") for name in outcomes) and any(name.endswith("answer") for name in outcomes)
