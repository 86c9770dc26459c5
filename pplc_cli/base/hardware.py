"""Facts of this machine: cores, memory, caches, CPU features, package versions."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Optional, Union

# Set in the training processes of this package. Paddle's own variables may be left over from another job.
WORKER = "PPLC_WORKER"
PACKAGES = (
    "pplc", "paddlepaddle", "paddlex", "onnxruntime", "openvino", "llvmlite", "numba", "numpy", "opencv-contrib-python",
    "simplejpeg", "pillow", "torch",
)  # fmt: skip
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "sve")
_ROOT = Path("/")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def facts() -> dict[str, Any]:
    """CPU, relevant instruction sets, caches in bytes, cores, package versions; unknown facts are left out."""
    fields, flags = cpu_info(), cpu_flags()
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "instructions": [name for name in _FEATURES if name in flags],
        "caches": caches(),
        "cores": physical_cores(),
        "logical_cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


@functools.cache
def cpu_info() -> dict[str, str]:
    """The fields of /proc/cpuinfo, for its last CPU; empty if there is no such file."""
    lines = _read("/proc/cpuinfo").splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu_flags() -> set[str]:
    """The CPU's features by their Linux names; empty on other systems."""
    fields = cpu_info()
    return set((fields.get("flags") or fields.get("Features") or "").split())


def caches() -> dict[str, int]:
    """Sizes in bytes of the first CPU's caches, by name: L1d, L1i, L2, L3; empty if they are unknown."""
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        number, unit = size[:-1], size[-1:]
        if number.isdecimal() and unit in ("K", "M"):
            found[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = (
                int(number) << {"K": 10, "M": 20}[unit]
            )
    return found


def _version(package: str) -> Optional[str]:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: Union[str, Path]) -> str:
    """The text of a small system file; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def physical_cores() -> int:
    """Count the cores that this process may use, by CPU affinity and container limits; hyper-threads count once.

    Several training processes on a machine share its cores equally.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        cores.add((_read(f"{topology}/physical_package_id"), _read(f"{topology}/core_id") or f"cpu{cpu}"))
    count = len(cores) if hasattr(os, "sched_getaffinity") else max(1, len(allowed) // 2)
    limit = _container_limit()
    if limit:
        count = min(count, limit)
    return max(1, count // local_processes())


def local_processes() -> int:
    """Number of training processes of this run on this machine, from Paddle's launcher; 1 outside such a run."""
    return int(os.environ["PADDLE_LOCAL_SIZE"]) if WORKER in os.environ else 1


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process can allocate without swapping; 2 GiB if that is unknown.

    This is the least of what the system, the control groups of a container and the process's own limit allow. Several
    training processes on a machine share its memory equally.

    Args:
        root: the folder of ``proc`` and ``sys``.
    """
    total = 2 << 30
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            total = int(line.split()[1]) * 1024
    total = min([total, *_free_in_groups(root)]) // local_processes()
    addresses = _free_addresses()
    return max(0, total if addresses is None else min(total, addresses))


def _free_in_groups(root: Path) -> Iterator[int]:
    """The free bytes of each control group that limits this process's memory."""
    for group in _groups("memory", root):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        usage = _read(group / "memory.current") or _read(group / "memory.usage_in_bytes")
        if limit.isdecimal() and usage.isdecimal():
            counts = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines() if " " in line)
            # Files that nobody has read lately are counted as used, but give way.
            reclaimable = int(counts.get("total_inactive_file") or counts.get("inactive_file") or 0)
            yield int(limit) - int(usage) + reclaimable


def _free_addresses() -> Optional[int]:
    """The bytes that RLIMIT_AS, as set by ``ulimit -v``, leaves to this process; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _read("/proc/self/statm").partition(" ")[0]
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return limit - int(pages) * resource.getpagesize()


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, version 1 or 2, from the innermost to the outermost.

    In a container, the outermost folder may be the container's own group although the path names its parents.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        yield from (top / part for part in (group, *group.parents) if ".." not in part.parts)


def _container_limit(root: Path = _ROOT) -> Optional[int]:
    """Whole cores that the control groups grant; None without a limit."""
    limits = []
    for group in _groups("cpu", root):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not period:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            limits.append(max(1, int(quota) // int(period)))
    return min(limits, default=None)
