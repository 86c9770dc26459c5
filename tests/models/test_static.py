"""Static graphs where Paddle's own place for their code, the home folder, is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAVE = """
import sys
from pathlib import Path
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network
from pplc_cli.models.static import save_graph

save_graph(load_paddle(), build_network("PPLCNet_x0_25", 2), (32, 32), Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder where nobody can write")
def test_no_home_folder(tmp_path):
    environment = {**os.environ, "HOME": "/proc/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path / "net")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["inference.json", "inference.pdiparams"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
