"""Settings of the process that must stand before Paddle loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
