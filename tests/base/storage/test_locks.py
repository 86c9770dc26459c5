"""Locks between processes: held, waited for, and free again after a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pplc_cli.base.storage.locks import Locked, lock

HOLDER = """
import sys, time
from pathlib import Path
from pplc_cli.base.storage.locks import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds ``tmp_path / "a.lock"``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_of_another_process_is_refused_without_waiting(holder, tmp_path):
    with pytest.raises(Locked, match=r"a\.lock is locked by another process"), lock(tmp_path / "a.lock", wait=False):
        pass
    with lock(tmp_path / "b.lock", wait=False):
        pass


def test_waiting_ends_when_the_holder_is_killed(holder, tmp_path):
    entered = threading.Event()

    def wait():
        with lock(tmp_path / "a.lock"):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not entered.wait(0.3)
    holder.kill()
    assert entered.wait(20)
    thread.join()


def test_a_lock_is_free_after_its_block(tmp_path):
    for _ in range(2):
        with lock(tmp_path / "a.lock", wait=False):
            pass
