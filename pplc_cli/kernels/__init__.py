"""Training on a CPU several times faster than Paddle's own kernels: ``accelerate(network)``.

The network stays what it was, plain Paddle layers with their parameters; only its forward pass is replaced. It is
traced (:mod:`trace`), turned into programs over pixels-by-channels memory (:mod:`plan`), and run by threads that work
through them without Python in between (:mod:`program`), with kernels compiled by Numba for the CPU at hand
(:mod:`convolution`, :mod:`depthwise`, :mod:`operations`; beneath them :mod:`blocks`, :mod:`activations`, :mod:`gemm`,
:mod:`loops`, :mod:`simd`, :mod:`llvm`). What is not known is left to Paddle.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, Optional


def unsupported() -> Optional[str]:
    """Why this machine's CPU must make do with Paddle's kernels; None where it need not."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the fast kernels are for x86-64 CPUs with AVX2, not {platform.machine()}"
    try:
        import llvmlite.binding
        import numba  # noqa: F401
    except Exception as error:  # a broken LLVM shows itself in many ways
        return f"Numba does not load ({error})"
    features = llvmlite.binding.get_host_cpu_features()
    if not (features.get("avx2") and features.get("fma")):
        return "the fast kernels need a CPU with AVX2 and FMA"
    return None


def compiled() -> bool:
    """Whether the kernels are ready for this CPU; else the first use compiles them, which takes about 20 seconds."""
    from pplc_cli.kernels.train.program import is_ready

    return is_ready()


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in one instruction; other ways would be slower than float32."""
    from pplc_cli.kernels.simd.llvm import BFLOAT16

    return unsupported() is None and BFLOAT16


def accelerate(
    network: Any,
    threads: Optional[int] = None,
    reduce: Optional[Callable[[Any], Any]] = None,
    bfloat16: bool = False,
) -> Optional[str]:
    """Let a network's forward and backward pass on a CPU run through fast kernels.

    Parameters, buffers and their names stay; the network can be trained, evaluated, saved and exported as before.
    Input that is no float32 tensor on the CPU of shape (N, C, H, W) or (N, C), and layers that are not known, go to
    Paddle as before. The result for a seed, a batch and a number of threads is always the same, to the bit.

    Args:
        network: a :class:`paddle.nn.Layer`.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        reduce: given where several processes train one network: adds a float64 array up over all of them, and batch
            norm then sees the batch of all.
        bfloat16: multiply the pointwise convolutions and their inputs' gradients in bfloat16 and add up in float32;
            everything else, the stored numbers and the gradients of weights too, stays float32. Without effect where
            :func:`has_bfloat16` says no.

    Returns:
        None, or why everything stays as it was (see :func:`unsupported`).
    """
    reason = unsupported()
    if reason is None:
        from pplc_cli.kernels.train.accelerated import replace

        replace(network, threads, reduce, bfloat16 and has_bfloat16())
    return reason


def restore(network: Any) -> None:
    """Undo :func:`accelerate`."""
    from pplc_cli.kernels.train.accelerated import restore

    restore(network)
