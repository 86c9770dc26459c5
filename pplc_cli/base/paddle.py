"""Import Paddle with the right settings, which must be set before the import; tensors and batch norm."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import numpy as np
from pplc_cli.base.hardware import cpu_flags, cpu_info, physical_cores

QUIET = ("GLOG_minloglevel", "2")  # silences Paddle's log on stderr


def load_paddle(threads: Optional[int] = None) -> Any:
    """Import Paddle with settings for fast training on a CPU; environment variables that the user set take precedence.

    Args:
        threads: threads of its kernels; None: :func:`physical_cores`.

    Returns:
        The module ``paddle``.
    """
    count = str(threads or physical_cores())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "FLAGS_paddle_num_threads"):
        os.environ.setdefault(name, count)
    os.environ.setdefault(*QUIET)
    kernels = _mkl_kernels(cpu_info().get("vendor_id", ""), cpu_flags())
    if kernels:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kernels)
    # Paddle warns about more than one thread, a compiler cache, and its own batch norm.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), _root_logger_kept():
        warnings.simplefilter("ignore")
        import paddle
    warnings.filterwarnings("ignore", module=r"paddle\..*")
    return paddle


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what Paddle's import does to the root logger: it would print the INFO lines of all packages."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _mkl_kernels(vendor: str, flags: set[str]) -> Optional[str]:
    """The value of MKL_DEBUG_CPU_TYPE that makes Paddle's MKL (of 2019) use its fast kernels on an AMD CPU.

    Paddle's own training of PPLCNet_x1_0 is 1.4 times as fast with them.
    """
    if vendor != "AuthenticAMD":
        return None
    return "7" if "avx512f" in flags else "5" if "avx2" in flags else None


def as_tensor(array: np.ndarray) -> Any:
    """Make a Paddle tensor of a contiguous array. On a CPU both share memory, so neither may be modified."""
    import paddle

    if paddle.get_device() != "cpu":
        return paddle.to_tensor(array)
    return paddle.utils.dlpack.from_dlpack(array)


def set_bn_momentum(layer: Any, momentum: float) -> None:
    """Set the momentum of a batch norm's running statistics.

    Paddle has no public way; its layers, and this package's kernels, read the attribute ``_momentum``.
    """
    layer._momentum = momentum


def bn_momentum(layer: Any) -> float:
    """The momentum of a batch norm's running statistics: the share of the old value that each batch keeps."""
    return layer._momentum
