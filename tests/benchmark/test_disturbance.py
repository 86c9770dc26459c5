"""Other work on the machine is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pplc_cli.benchmark.disturbance import BUSY, busy_cpus, disturbance


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="without it, the work of the CPUs is unknown")
def test_another_process_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as other:
        try:
            assert other.stdout is not None and other.stdout.readline()
            busy = busy_cpus(1.0)
        finally:
            other.kill()
    assert busy is not None and busy > BUSY


def test_steady_times_on_an_idle_machine_are_fine() -> None:
    found = disturbance([0.0, 0.05, None], [[1.0, 1.01, 1.02, 1.03], [5.0, 5.1, 5.2, 5.3]])
    assert not found.disturbed and found.busy_cpus == pytest.approx(0.025) and found.spread < 0.05


def test_busy_cpus_or_unsteady_times_disturb() -> None:
    assert disturbance([0.0, 1.0], [[1.0, 1.0]]).disturbed
    assert disturbance([None], [[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, 2.0]]).disturbed
    assert not disturbance([None], [[1.0]]).disturbed
