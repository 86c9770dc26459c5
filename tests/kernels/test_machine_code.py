"""The machine code of kernels on disk: kept, and made anew where it is damaged or somebody else's."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT, recipe
from helpers.images import random_image, write_image

KERNEL = """
from pplc_cli.kernels.machine_code import compiled, is_compiled

@compiled(__file__)
def _add(numbers):
    for index in range(len(numbers)):
        numbers[index] += 1

import numpy as np

numbers = np.arange(5)
found = is_compiled(_add, numbers)
_add(numbers)
print("found" if found else "compiled", numbers.sum())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Compile and run a small kernel in a new process."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "kernel" / "kernel.py"
    source.parent.mkdir()
    source.write_text(KERNEL, encoding="utf-8")

    def start(env=(), **options):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict(env)}
        done = subprocess.run([sys.executable, source], env=environment, capture_output=True, text=True, **options)
        assert done.returncode == 0 and not done.stderr, (done.returncode, done.stderr)
        return done.stdout.split()

    return start


@pytest.fixture
def code(run, tmp_path):
    """The file of a compiled kernel."""
    assert run() == ["compiled", "15"]
    (file,) = (tmp_path / "cache" / "kernels").iterdir()
    assert run() == ["found", "15"]
    return file


DAMAGES = {
    "empty": lambda content: b"",
    "cut in the checksum": lambda content: content[:20],
    "cut": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "zeroed": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "longer": lambda content: content + b"\0",
}


def test_damaged_code_is_compiled_again(run, code):
    for name in ("empty", "cut", "one bit"):
        code.write_bytes(DAMAGES[name](code.read_bytes()))
        assert run() == ["compiled", "15"], name
    assert run() == ["found", "15"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_predict_compiles_damaged_kernels_again(untrained, pplc, tmp_path, monkeypatch, name):
    copy = tmp_path / "cache" / "kernels"
    shutil.copytree(Path(os.environ["NUMBA_CACHE_DIR"]) / "kernels", copy)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(copy.parent))
    write_image(tmp_path / "image.png", random_image(1))
    # Only the smallest file is damaged: the others take half a minute to compile.
    for file in copy.glob("infer_crop_of_resized*"):
        file.write_bytes(DAMAGES[name](file.read_bytes()))
    done = pplc("predict", "image.png", "--model", str(untrained(0)), "--engine", "pplc")
    assert "compiling pplc's kernels for this CPU" in done.stderr and "image.png" in done.stdout
    again = pplc("predict", "image.png", "--model", str(untrained(0)), "--engine", "pplc")
    assert "compiling" not in again.stderr and again.stdout.splitlines()[0] == done.stdout.splitlines()[0]


@pytest.mark.slow
def test_a_folder_in_the_place_of_the_code(run, code):
    code.unlink()
    code.mkdir()
    assert run() == ["compiled", "15"]


def test_a_full_disk_stops_nothing(run, tmp_path):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    assert run(**limit) == ["compiled", "15"]
    assert not list((tmp_path / "cache" / "kernels").iterdir())
    assert run() == ["compiled", "15"]


def test_no_folder_can_be_made(run):
    assert run({"PPLC_CACHE": "/dev/null/cache"}) == ["compiled", "15"]


@pytest.mark.slow
def test_numba_settings_do_not_mix(run, code):
    assert run({"NUMBA_OPT": "0"}) == ["compiled", "15"]
    assert run({"NUMBA_NUM_THREADS": "1"}) == ["found", "15"]


def test_only_the_user_may_write(run, code):
    assert stat.S_IMODE(code.parent.stat().st_mode) == 0o700
    code.parent.chmod(0o777)
    run()
    assert stat.S_IMODE(code.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", pytest.param("file", marks=pytest.mark.slow)])
def test_code_of_another_user_is_not_loaded(run, code, what):
    os.chown(code if what == "file" else code.parent, 65534, 65534)
    assert run() == ["compiled", "15"]


def test_the_note_says_how_often_kernels_are_compiled(tmp_path, monkeypatch):
    from pplc_cli.kernels import compiling_note

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiling_note().endswith("the first time only")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("PPLC_CACHE", "/dev/null/cache")
    assert "in every run, because the result cannot be kept (Not a directory)" in compiling_note()
    assert "PPLC_CACHE" in compiling_note()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_CPU_NAME", "generic"),
        ("NUMBA_CPU_FEATURES", "+sse"),
        ("NUMBA_ENABLE_AVX", "0"),
    ],
)
def test_settings_of_numba_that_exclude_the_kernels(monkeypatch, name, value):
    from pplc_cli.kernels import unsupported
    from pplc_cli.predict.engines.pplc import compilation_note, ready

    before = unsupported()
    monkeypatch.setenv(name, value)
    assert unsupported() == f"the environment variable {name} is set, which changes what Numba compiles"
    assert not ready() and compilation_note() is None
    monkeypatch.setenv(name, {"NUMBA_ENABLE_AVX": "1", "NUMBA_DISABLE_JIT": "0"}.get(name, ""))
    assert unsupported() == before


@pytest.mark.slow
def test_training_without_compiled_code(class_folders, pplc):
    args = recipe(class_folders(), epochs=1)
    pplc("split", "--dataset", args[1])
    done = pplc("train", *args, "--output", "run", env={"NUMBA_DISABLE_JIT": "1"})
    assert (
        "training with Paddle's own, slower kernels: the environment variable NUMBA_DISABLE_JIT is set" in done.stderr
    )
    assert "Traceback" not in done.stderr
