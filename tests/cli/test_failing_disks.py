"""Commands on a disk that is full, broken or over its quota: one line, no traceback, nothing half written."""

from __future__ import annotations

import errno
import os
import shutil
import sys

import pytest

from helpers.commands import Pplc
from helpers.failing_disk import build_failing_disk, failing_disk
from pplc_cli.base.storage.files import TEMPORARY

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the failing disk needs LD_PRELOAD"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the failing disk needs gcc"),
]
ERRORS = [errno.ENOSPC, errno.EIO, errno.EDQUOT]
# By command: its words; {out} is on the failing disk.
COMMANDS = {
    "split": ["split", "--dataset", "{set}", "--lists", "{out}/lists"],
    "train": ["train", "{recipe}", "--epochs", "1", "--output", "{out}/run"],
    "eval": ["eval", "--run", "{run}", "--output", "{out}/report"],
    "export": ["export", "--run", "{run}", "--output", "{out}/exported"],
    "predict": ["predict", "--run", "{run}", "{set}", "--output", "{out}/answers.csv"],
    "save": ["predict", "--run", "{run}", "{set}", "--save", "{out}/drawn"],
    "sort": ["predict", "--run", "{run}", "{set}", "--sort-into", "{out}/sorted"],
    "label": ["label", "{set}", "--model", "{run}", "--threshold", "0", "--output", "{out}/list.txt"],
    "init": ["init", "{set}", "--output", "{out}/set.yaml"],
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_failing_disk(tmp_path_factory.mktemp("library"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 3000, 60000], ids="after-{}".format)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_failing_disk_costs_one_line(library, trained, tmp_path, command, after):
    (out := tmp_path / "out").mkdir()
    library.with_name("failed").unlink(missing_ok=True)
    code = ERRORS[(list(COMMANDS).index(command) + after) % len(ERRORS)]
    values = {"out": str(out), "set": str(trained.data), "run": str(trained.run)}
    words = []
    for word in COMMANDS[command]:
        words += trained.args[:-2] if word == "{recipe}" else [word.format(**values)]
    done = Pplc(tmp_path)(*words, check=False, env=failing_disk(library, out, code, after))
    failed = library.with_name("failed").exists()
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert failed or after, "nothing was written"
    assert not list(out.rglob(f"{TEMPORARY}*"))
    if not failed:
        assert done.returncode == 0, done.stderr
        return
    errors = [line for line in done.stderr.splitlines() if os.strerror(code).lower() in line.lower()]
    pictures = [line for line in errors if ".png: " in line]
    assert len(errors) - max(0, len(pictures) - 1) == 1 and str(out) in errors[0], done.stderr
    # Each picture of a report is worth a note: its figures are there.
    assert done.returncode == (0 if command in ("train", "eval") and ".png: " in errors[0] else 1), done.stderr
