"""Kernels for x86-64 CPUs, compiled by Numba on the user's machine: ``accelerate(network)`` trains with them.

A network that is accelerated keeps its Paddle layers and their parameters; only its forward pass is replaced. It is
traced (:mod:`train.trace`) and turned into programs (:mod:`train.plan`), whose operations a team of threads runs
without Python in between (:mod:`train.program`). Layers without a kernel are left to Paddle.

:mod:`infer` does the same for exported networks (:mod:`graph`), forward only. Both are built on :mod:`simd`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any, Optional

from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.schema import expect_type

# With other values, Numba compiles nothing, or for another CPU than the one whose instructions the kernels use.
_NUMBA_SETTINGS = {"NUMBA_DISABLE_JIT": "0", "NUMBA_ENABLE_AVX": "1", "NUMBA_CPU_NAME": "", "NUMBA_CPU_FEATURES": ""}


def unsupported() -> Optional[str]:
    """The reason why this machine cannot run the kernels, or None."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return tr("the fast kernels are for x86-64 CPUs with AVX2, not {machine}", machine=platform.machine())
    try:
        import numba  # noqa: F401
    except Exception as error:  # a broken LLVM raises all kinds of exceptions
        return tr("Numba does not load ({error})", error=error)
    from pplc_cli.kernels.simd.isa import chosen

    for name, usual in _NUMBA_SETTINGS.items():
        if os.environ.get(name, usual) != usual:
            return tr("the environment variable {name} is set, which changes what Numba compiles", name=name)
    if not chosen():
        return tr("the fast kernels need a CPU with AVX2 and FMA")
    return None


def instruction_set() -> Optional[str]:
    """The instruction set that the kernels use, see :mod:`simd.isa`; None if this machine cannot run them."""
    if unsupported() is not None:
        return None
    from pplc_cli.kernels.simd.isa import chosen

    return chosen()


def compiling_note() -> str:
    """What to tell the user before kernels are compiled."""
    from pplc_cli.kernels.machine_code import cache_fault

    fault = cache_fault()
    if fault is None:
        return tr("compiling pplc's kernels for this CPU; this takes one to two minutes, the first time only")
    return tr(
        "compiling pplc's kernels for this CPU; this takes one to two minutes in every run, because the result cannot "
        "be kept ({reason}). Set PPLC_CACHE to a folder of your own",
        reason=fault,
    )


def compile_all(note: Callable[[str], None]) -> None:
    """Compile the kernels of training, and those of inference for the export that will follow, unless they are there.

    Args:
        note: called before, if something must be compiled.
    """
    from pplc_cli.kernels.infer import program, resize
    from pplc_cli.kernels.machine_code import cache_fault
    from pplc_cli.kernels.train import program as training

    if training.is_ready() and program.is_ready() and resize.is_ready():
        return
    note(compiling_note())
    training.make_team(1)
    if cache_fault() is None:
        program.team(1)
        resize.matches_opencv()


def has_bfloat16() -> bool:
    """Whether the CPU has an instruction for products of bfloat16; without one they would be slower than float32."""
    from pplc_cli.kernels.simd.llvm import BFLOAT16

    return unsupported() is None and BFLOAT16


def accelerate(
    network: Any,
    threads: Optional[int] = None,
    reduce: Optional[Callable[[Any], Any]] = None,
    bfloat16: bool = False,
) -> Optional[str]:
    """Run a network's forward and backward pass through fast CPU kernels.

    Parameters, buffers and their names do not change; the network trains, evaluates, saves and exports as before.
    Paddle still runs layers that have no kernel, and inputs other than float32 CPU tensors of shape (N, C, H, W) or
    (N, C). The result for one seed, batch and number of threads is always the same, to the bit.

    Args:
        network: a :class:`paddle.nn.Layer`.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.
        reduce: sums a float64 array over all processes that train the network together; batch norm then uses the
            statistics of their common batch. None: each process uses its own.
        bfloat16: compute pointwise convolutions and the gradients of their inputs with products in bfloat16 and sums
            in float32. Everything else stays float32, stored numbers and the gradients of weights included. Without
            effect if :func:`has_bfloat16` is false.

    Returns:
        None, or the reason why the network was left as it is (see :func:`unsupported`).

    Raises:
        TypeError: ``network`` is no layer, or ``threads`` no integer.
    """
    expect_type("network", network, load_paddle().nn.Layer)
    expect_type("threads", threads, int, type(None))
    reason = unsupported()
    if reason is None:
        load_paddle(threads)
        from pplc_cli.kernels.train.accelerated import replace

        replace(network, threads, reduce, bfloat16 and has_bfloat16())
    return reason


def restore(network: Any) -> None:
    """Undo :func:`accelerate`."""
    from pplc_cli.kernels.train.accelerated import restore

    restore(network)
