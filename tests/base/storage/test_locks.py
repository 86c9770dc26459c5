"""Locks between processes: held, waited for, and free again after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pplc_cli.base.storage.locks import Locked, beside, claim, lock

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
    with (
        pytest.raises(Locked, match=rf"a\.lock is locked by process {holder.pid} on "),
        lock(tmp_path / "a.lock", wait=False),
    ):
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


def test_a_claim_names_the_process_and_leaves_no_file(holder, tmp_path):
    refused = rf"out: process {holder.pid} on .* is writing it; wait until it ends"
    with pytest.raises(Locked, match=refused), claim(tmp_path / "out", tmp_path / "a.lock"):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "a.lock").exists()  # of a dead process: it does not count
    with claim(tmp_path / "out", tmp_path / "a.lock"):
        assert (tmp_path / "a.lock").exists()
    assert not list(tmp_path.iterdir())


def test_one_of_many_threads_at_a_time(tmp_path):
    """The file is removed each time, while others wait for it."""
    inside, most, done = [], [], []

    def work():
        for _ in range(20):
            with claim(tmp_path / "out", beside(tmp_path / "out"), wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4 and len(most) == 80 and max(most) == 1


@pytest.mark.skipif(os.name == "nt", reason="flock is of Unix")
@pytest.mark.parametrize("wait", [True, False])
def test_without_locks_the_work_goes_on_with_a_note(tmp_path, monkeypatch, wait):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    notes: list[str] = []
    with lock(tmp_path / "a.lock", wait=wait, note=notes.append):
        pass
    assert len(notes) == 1 and "No locks available" in notes[0]
