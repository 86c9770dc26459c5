"""Settings of the process that must stand before Paddle loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pplc_cli.base.paddle import _mkl_kernels


def cpuinfo(vendor, flags):
    return f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: a CPU\nflags\t\t: fpu {flags}\n"


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        (cpuinfo("AuthenticAMD", "avx avx2 avx512f"), "7"),
        (cpuinfo("AuthenticAMD", "avx avx2 fma"), "5"),
        (cpuinfo("AuthenticAMD", "avx"), None),
        (cpuinfo("GenuineIntel", "avx avx2 avx512f"), None),
        ("processor\t: 0\nFeatures\t: fp asimd\n", None),  # ARM
        ("", None),  # no such file
    ],
)
def test_mkl_kernels(text, kernels):
    assert _mkl_kernels(text) == kernels


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "GLOG_minloglevel"])
def test_what_the_user_set_wins(name):
    code = f"import os; from pplc_cli.base.paddle import load_paddle; load_paddle(); print(os.environ[{name!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "1"
