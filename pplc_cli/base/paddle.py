"""Settings of the process that must stand before Paddle loads."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import numpy as np

QUIET = ("GLOG_minloglevel", "2")  # Paddle's own remarks on stderr are not for our users
WORKER = "PPLC_WORKER"  # set for our training processes: Paddle's own variables may be left over from another job


def physical_cores() -> int:
    """Cores this process may use: hyper-threads counted once, CPU affinity and container limits respected.

    Of several training processes on a machine, each has an equal share.
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
    """Training processes of this run on this machine, as Paddle's launcher tells those that pplc started."""
    return int(os.environ["PADDLE_LOCAL_SIZE"]) if WORKER in os.environ else 1


def load_paddle(threads: Optional[int] = None) -> Any:
    """Import Paddle with settings that suit training on a CPU; what the user set in the environment wins.

    Args:
        threads: threads of its kernels; None: :func:`physical_cores`.

    Returns:
        The module ``paddle``.
    """
    count = str(threads or physical_cores())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "FLAGS_paddle_num_threads"):
        os.environ.setdefault(name, count)
    os.environ.setdefault(*QUIET)
    kernels = _mkl_kernels(_read("/proc/cpuinfo") or "")
    if kernels:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kernels)
    # Paddle remarks on having more than one thread, on a compiler cache, and on its own batch norm.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import paddle
    warnings.filterwarnings("ignore", module=r"paddle\..*")
    return paddle


def _mkl_kernels(cpuinfo: str) -> Optional[str]:
    """The kernels for the MKL of 2019 that Paddle brings, on an AMD CPU, where it picks slow ones by itself.

    Paddle's own training of PPLCNet_x1_0 is 1.4 times as fast with them.
    """
    lines = cpuinfo.splitlines()
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    if not any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in lines):
        return None
    return "7" if "avx512f" in flags else "5" if "avx2" in flags else None


def as_tensor(array: np.ndarray) -> Any:
    """A Paddle tensor of a contiguous array; on a CPU it is the array's memory, and neither must be written to."""
    import paddle

    if paddle.get_device() != "cpu":
        return paddle.to_tensor(array)
    return paddle.utils.dlpack.from_dlpack(array)


def available_memory() -> int:
    """Bytes that this process can take without swapping; 2 GiB where the system does not tell.

    Of several training processes on a machine, each has an equal share.
    """
    total = 2 << 30
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            total = int(line.split()[1]) * 1024
    return total // local_processes()


def _container_limit() -> Optional[int]:
    """Whole cores that a cgroup (version 2, then 1) grants."""
    quota, _, period = (_read("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    if not period:
        quota = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ""
        period = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if quota.isdecimal() and period.isdecimal() and int(period):
        return max(1, int(quota) // int(period))
    return None


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123 - /proc and /sys only
            return file.read().strip()
    except OSError:
        return None
