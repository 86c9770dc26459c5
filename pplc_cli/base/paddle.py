"""Import Paddle with the right settings, which must be set before the import; tensors and batch norm."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import numpy as np
from pplc_cli.base.hardware import cpu_flags, cpu_info, physical_cores
from pplc_cli.base.signals import python_handlers_kept

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
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), _without_signal_handlers():
        warnings.simplefilter("ignore")
        import paddle
    warnings.filterwarnings("ignore", module=r"paddle\..*")
    return paddle


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
