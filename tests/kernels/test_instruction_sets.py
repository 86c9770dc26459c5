"""The kernels for every instruction set of this CPU: the other tests of this folder run for the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pplc_cli.kernels.simd.isa import available

HERE = Path(__file__).parent
SMALLER = available()[:-1]


def run(isa: str, *command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PPLC_ISA": isa}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("isa", available())
def test_the_compiler_uses_no_larger_set(isa):
    program = (
        "from pplc_cli.kernels.simd import llvm\n"
        "from numba.core.registry import cpu_target\n"
        "features = cpu_target.target_context.codegen()._tm_features.split(',')\n"
        "print(llvm.LANES, *(f for f in features if f.startswith(('+avx512', '+avxvnni'))))"
    )
    lanes, *features = run(isa, "-c", program).stdout.split()
    assert int(lanes) == (16 if isa == "avx512" else 8)
    assert any(feature.startswith("+avx512") for feature in features) == (isa == "avx512")
    assert ("+avxvnni" in features) == (isa == "avx2_vnni" or (isa == "avx512" and "avx2_vnni" in available()))


def test_a_set_that_the_cpu_lacks_is_an_error_of_one_line():
    done = run("avx9", "-c", "from pplc_cli.kernels import unsupported; unsupported()")
    assert f"PPLC_ISA: expected {', '.join(available())}, which this CPU has, got 'avx9'" in done.stderr


@pytest.mark.skipif(not SMALLER, reason="the CPU has one instruction set only, which the other tests cover")
@pytest.mark.parametrize(
    "isa", [pytest.param(isa, marks=pytest.mark.slow) if isa == "avx2_vnni" else isa for isa in SMALLER]
)
def test_the_kernels_of_smaller_sets_pass_the_same_tests(isa):
    files = [
        str(HERE / name) for name in ("test_infer_kernels.py", "test_train_convolutions.py", "test_train_kernels.py")
    ]
    anywhere = "refused or past_their_memory"  # nothing of what these check depends on the set
    options = ["-q", "-m", "not slow", "-k", f"not ({anywhere})", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = run(isa, "-m", "pytest", *files, *options)
    assert done.returncode == 0, done.stdout[-5000:]
