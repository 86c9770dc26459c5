"""Settings of the process that must stand before Paddle loads, and Paddle in several threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from helpers.commands import ROOT
from pplc_cli.base.paddle import _mkl_kernels


@pytest.mark.parametrize(
    ("vendor", "flags", "kernels"),
    [
        ("AuthenticAMD", "avx avx2 avx512f", "7"),
        ("AuthenticAMD", "avx avx2 fma", "5"),
        ("AuthenticAMD", "avx", None),
        ("GenuineIntel", "avx avx2 avx512f", None),
        ("", "fp asimd", None),  # ARM
        ("", "", None),  # no /proc/cpuinfo
    ],
)
def test_mkl_kernels(vendor, flags, kernels):
    assert _mkl_kernels(vendor, set(flags.split())) == kernels


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "GLOG_minloglevel"])
def test_what_the_user_set_wins(name):
    code = f"import os; from pplc_cli.base.paddle import load_paddle; load_paddle(); print(os.environ[{name!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1"


@pytest.fixture
def call_anywhere(trained, tmp_path):
    """Call public functions in the threads of a new process; see the helper."""

    def call(where, *functions):
        command = [sys.executable, str(ROOT / "tests" / "helpers" / "anywhere.py"), str(trained.run), where, *functions]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return call


def test_the_thread_that_loads_paddle_first_may_end(call_anywhere):
    assert call_anywhere("thread,main,thread", "build") == ["thread build", "main build", "thread build"]


def test_dynamic_mode_returns_if_someone_else_loaded_paddle_in_a_thread_that_ended():
    code = """
import threading
thread = threading.Thread(target=__import__, args=("paddle",))
thread.start(), thread.join()
import paddle
lost = not paddle.in_dynamic_mode()
from pplc_cli.base.paddle import load_paddle
print(lost, load_paddle().in_dynamic_mode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("function", ["train", "evaluate", "export", "predict", "build"])
@pytest.mark.parametrize("where", ["thread,main", "main,thread", "both,main"])
def test_public_functions_run_in_every_thread(call_anywhere, where, function):
    assert call_anywhere(where, function) == [f"{place} {function}" for place in where.split(",")]


@pytest.mark.slow
def test_public_functions_run_together(call_anywhere):
    call_anywhere("together", "train", "export", "evaluate", "predict", "build", "export", "evaluate")
