"""Import Paddle with the right settings, which must be set before the import; tensors and batch norm."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import numpy as np
from pplc_cli.base.hardware import cpu_flags, cpu_info, physical_cores
from pplc_cli.base.processes.forks import hold_at_fork
from pplc_cli.base.processes.signals import python_handlers_kept

QUIET = ("GLOG_minloglevel", "2")  # silences Paddle's log on stderr
# Held while something is changed in the whole process for a moment: to trace a network, save it as a static graph or
# build it without values, and to import Paddle.
EXCLUSIVE = threading.RLock()
hold_at_fork(EXCLUSIVE)
_modes: list[Any] = []  # what keeps Paddle's dynamic mode on, see _enter_dynamic_mode


def load_paddle(threads: Optional[int] = None) -> Any:
    """Import Paddle with settings for fast training on a CPU; environment variables that the user set take precedence.

    Every public function that uses Paddle calls this first, in its own thread: see :func:`_enter_dynamic_mode`.

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
    with EXCLUSIVE:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            with _root_logger_kept(), _without_signal_handlers():
                import paddle
        warnings.filterwarnings("ignore", module=r"paddle\..*")
        _enter_dynamic_mode(paddle)
    return paddle


def _enter_dynamic_mode(paddle: Any) -> None:
    """Switch Paddle's dynamic mode on in this thread, and keep it on.

    The thread that imports Paddle enters the mode through a context manager that lies in its thread-local storage. When
    the thread ends, so does the mode, for the threads started later and for those that have not used Paddle yet. So
    the context manager is kept here.
    """
    if not paddle.in_dynamic_mode():
        paddle.disable_static()
    mode = paddle.base.framework.global_var._functional_dygraph_context_manager
    if mode is not None and not any(mode is known for known in _modes):
        _modes.append(mode)


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what Paddle's import does to the root logger: it would print the INFO lines of all packages."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@contextlib.contextmanager
def _without_signal_handlers() -> Iterator[None]:
    """Take away the handlers that Paddle installs while it is imported, as soon as they are there.

    They print a page of C++ for SIGTERM, and can hang.
    """
    if "paddle" in sys.modules:
        yield
        return
    finder = _AfterStart()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _AfterStart(MetaPathFinder):
    """Finds no module, but notices when Paddle's core has started: then ``paddle.tensor`` is imported."""

    def find_spec(self, name: str, path: Optional[Sequence[str]], target: Any = None) -> None:
        if name == "paddle.tensor":
            with python_handlers_kept():
                sys.modules["paddle.base.core"].disable_signal_handler()


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


@contextlib.contextmanager
def batch_statistics_weighted(network: Any, share: float) -> Iterator[None]:
    """For the time of the block, count a batch in the running statistics by its share of a whole batch.

    Otherwise the last batch of an epoch, perhaps a single image, would count as much as any other, right before the
    network is validated with these statistics.

    Args:
        network: the layer whose batch norms are meant.
        share: images of the batch / images of a whole batch.
    """
    if share == 1:
        yield
        return
    layers = [layer for layer in network.sublayers() if hasattr(layer, "_momentum")]
    momenta = [bn_momentum(layer) for layer in layers]
    for layer, momentum in zip(layers, momenta):
        set_bn_momentum(layer, momentum**share)
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta):
            set_bn_momentum(layer, momentum)
