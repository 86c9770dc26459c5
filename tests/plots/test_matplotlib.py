"""Pictures are drawn whatever the environment says; one that cannot be drawn is told in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest
from PIL import Image

from helpers.commands import ROOT
from pplc_cli.plots.contact_sheet import contact_sheet
from pplc_cli.plots.figure import DrawError

DRAW = """
import os, sys
from pplc_cli.plots.curves import draw_curves
draw_curves(sys.argv[1], [{"epoch": 1, "learning_rate": 0.1, "train_loss": 1.0, "val_top1": 0.5}])
print(os.environ.get("MPLBACKEND"), "matplotlib.pyplot" in sys.modules)
"""


def draw(folder: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Draw in a process of its own, with ``folder`` as its current folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MPL")}
    return subprocess.run(
        [sys.executable, "-c", DRAW, name],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_the_environment_changes_nothing(tmp_path: Path) -> None:
    """A notebook's backend, settings that need LaTeX and a display, a settings folder that is a file."""
    assert draw(tmp_path, "plain.png").returncode == 0
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\nfont.size: 40\nnonsense: 1\n")
    (tmp_path / "file").write_text("no folder")
    done = draw(
        tmp_path, "other.png", MPLBACKEND="module://no_such_module.backend", MPLCONFIGDIR=str(tmp_path / "file")
    )
    assert (done.returncode, done.stdout) == (0, "module://no_such_module.backend False\n"), done.stderr
    assert pixels(tmp_path / "plain.png") == pixels(tmp_path / "other.png")


@pytest.mark.parametrize("backend", [None, "svg"])
def test_charts_of_the_program_around_it_keep_their_backend(tmp_path: Path, backend: Optional[str]) -> None:
    code = DRAW + "import matplotlib; print(dict.__getitem__(matplotlib.rcParams, 'backend'))"
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"MPLBACKEND": backend} if backend else {})
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1]
    assert last == backend if backend else "object" in last  # not chosen yet


def test_a_picture_that_cannot_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")  # Matplotlib refuses to load
    done = draw(tmp_path, "curves.png")
    assert "DrawError: curves.png cannot be drawn: UnicodeDecodeError: " in done.stderr
    with pytest.raises(DrawError, match=r"sheet\.nonsense cannot be drawn: ValueError: unknown file extension"):
        contact_sheet(tmp_path / "sheet.nonsense", [])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DrawError, match=r"cannot write .*folder\.png"):
        contact_sheet(tmp_path / "folder.png", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "matplotlibrc"]
