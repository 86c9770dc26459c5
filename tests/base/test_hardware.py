"""Facts of the machine, from system files written for the test."""

from __future__ import annotations

import pytest

from pplc_cli.base import hardware


@pytest.fixture
def system(monkeypatch):
    """System files by path; others are missing."""
    files: dict[str, str] = {}
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(str(path), ""))
    monkeypatch.delenv(hardware.WORKER, raising=False)
    hardware.cpu_info.cache_clear()
    yield files
    hardware.cpu_info.cache_clear()


@pytest.mark.parametrize(
    ("name", "flags"), [("flags", {"fpu", "avx2"}), ("Features", {"fp", "asimd"}), ("bogomips", set())]
)
def test_cpu_flags_on_x86_arm_and_elsewhere(system, name, flags):
    system["/proc/cpuinfo"] = f"processor\t: 0\n{name}\t: {' '.join(sorted(flags)) or '4000'}\n"
    assert hardware.cpu_flags() == flags


def test_memory_is_shared_by_the_training_processes(system, monkeypatch):
    assert hardware.available_memory() == 2 << 30  # unknown
    system["/proc/meminfo"] = "MemTotal: 9 kB\nMemAvailable:    4096 kB\n"
    assert hardware.available_memory() == 4096 * 1024
    monkeypatch.setenv(hardware.WORKER, "1")
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "4")
    assert hardware.available_memory() == 1024 * 1024


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({}, 8),
    ],
)
def test_cores_within_the_limit_of_a_container(system, monkeypatch, files, cores):
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    system.update(files)
    assert hardware.physical_cores() == cores


def test_hyper_threads_count_once(system, monkeypatch):
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    for cpu in range(4):
        system[f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = "0"
        system[f"/sys/devices/system/cpu/cpu{cpu}/topology/core_id"] = str(cpu // 2)
    assert hardware.physical_cores() == 2
