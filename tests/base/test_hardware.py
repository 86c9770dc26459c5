"""Facts of the machine, from system files written for the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        (
            {
                "/proc/self/cgroup": "1:cpuset:/\n2:cpu,cpuacct:/docker/1f2e",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        (
            {
                "/proc/self/cgroup": "0::/user.slice/job.scope",
                "/sys/fs/cgroup/user.slice/cpu.max": "300000 100000",
                "/sys/fs/cgroup/user.slice/job.scope/cpu.max": "max 100000",
            },
            3,
        ),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "max 100000"}, 8),
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


MB = 1 << 20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that writes the system files of a machine with 8 GB free and returns their root."""
    monkeypatch.delenv(hardware.WORKER, raising=False)

    def write(groups: str, files: dict[str, object]) -> Path:
        known = {"proc/meminfo": f"MemAvailable: {8 << 20} kB", "proc/self/cgroup": groups}
        for name, text in {**known, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
        return tmp_path

    return write


def test_memory_limit_of_a_container(root):
    files = {"memory.max": 512 * MB, "memory.current": 100 * MB, "memory.stat": f"anon 5\ninactive_file {20 * MB}"}
    assert hardware.available_memory(root("0::/", files)) == 432 * MB


def test_memory_limit_of_version_1(root):
    files = {"memory/memory.limit_in_bytes": 512 * MB, "memory/memory.usage_in_bytes": 100 * MB}
    # The path names the group as the host sees it; the container has only its own folder.
    assert hardware.available_memory(root("4:cpu:/\n3:hugetlb,memory:/docker/1f2e\n0::/", files)) == 412 * MB
    unlimited = {"memory/memory.limit_in_bytes": (1 << 63) - 4096, "memory/memory.usage_in_bytes": 100 * MB}
    assert hardware.available_memory(root("3:memory:/", unlimited)) == 8192 * MB


@pytest.mark.parametrize("smallest", ["", "a/", "a/b.slice/", "a/b.slice/c/"])
def test_the_smallest_of_nested_limits_counts(root, smallest):
    files: dict[str, object] = {}
    for group in ("", "a/", "a/b.slice/", "a/b.slice/c/"):
        files[f"{group}memory.max"] = 300 * MB if group == smallest else "max"
        files[f"{group}memory.current"] = 50 * MB
    assert hardware.available_memory(root("0::/a/b.slice/c", files)) == 250 * MB


def test_a_full_container_has_no_memory_left(root):
    files = {"memory.max": 100 * MB, "memory.current": 101 * MB}
    assert hardware.available_memory(root("0::/", files)) == 0


def test_groups_outside_the_container_and_damaged_files_are_ignored(root):
    files = {"memory.max": "many", "memory.current": "", "outside/memory.max": MB, "outside/memory.current": 0}
    assert hardware.available_memory(root("0::/../outside\nnonsense\n", files)) == 8192 * MB


LIMITED = """
import resource
from pplc_cli.base.hardware import available_memory
from pplc_cli.data.loading.image_cache import ImageCache

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
print(used, available_memory(), ImageCache().budget)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_the_limit_of_a_process_counts():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    used, free, budget = map(int, done.stdout.split())
    assert 0 < free <= (3 << 30) - used
    assert budget <= free
