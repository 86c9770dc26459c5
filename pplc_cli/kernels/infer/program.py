"""The operations of inference programs, and the compiled function that runs them."""

from __future__ import annotations

import enum
import functools

import numpy as np

from pplc_cli.kernels.infer.ops import convolution, elementwise, pooling, winograd
from pplc_cli.kernels.machine_code import compiled, is_compiled
from pplc_cli.kernels.simd.barrier import barrier
from pplc_cli.kernels.team import ThreadTeam, empty_program

# The columns of an operation's row, each int64: addresses, sizes and switches. See :mod:`steps` for their meanings.
FIELDS = """
    code x ldx y ldy more ldm w bias act w0 bias0 act0 ci0 w2 bias2 act2 n h_in w_in ci ho wo co columns
    kh kw sh sw pt pl dh dw block split kind quant factor
""".split()  # noqa: SIM905
OPERATION = np.dtype([(name, np.int64) for name in FIELDS])


class Code(enum.IntEnum):
    """The code of an operation, named like its kernel."""

    DENSE = 0
    DEPTHWISE = 1
    PLANAR = 2
    MEAN = 3
    SCALE = 4
    COMBINE = 5
    SHUFFLE = 6
    POOL = 7
    SOFTMAX = 8
    WINOGRAD = 9


@compiled(__file__)
def _work(ops, thread, threads, scratch, arrivals):  # type: ignore[no-untyped-def]
    """Run one thread's part of every operation of a program; a barrier follows each operation."""
    for i in range(len(ops)):
        op = ops[i]
        code = op.code
        if code == Code.DEPTHWISE:
            convolution.depthwise(op, scratch, thread, threads)
        elif code == Code.DENSE:
            convolution.dense(op, scratch, thread, threads)
        elif code == Code.PLANAR:
            convolution.planar(op, scratch, thread, threads)
        elif code == Code.MEAN:
            pooling.mean(op, thread, threads)
        elif code == Code.SCALE:
            elementwise.scale(op, thread, threads)
        elif code == Code.COMBINE:
            elementwise.combine(op, thread, threads)
        elif code == Code.SHUFFLE:
            elementwise.shuffle(op, thread, threads)
        elif code == Code.POOL:
            pooling.pool(op, thread, threads)
        elif code == Code.SOFTMAX:
            elementwise.softmax(op, thread, threads)
        elif code == Code.WINOGRAD:
            winograd.winograd(op, scratch, thread, threads)
        barrier(arrivals, threads)


def is_ready() -> bool:
    """Whether the kernels for this CPU are in memory or in the cache folder."""
    return is_compiled(_work, *empty_program(OPERATION))


def team(threads: int) -> ThreadTeam:
    """A team of threads for inference programs. Networks share a team of several threads; teams of one are separate."""
    return _team(threads) if threads > 1 else ThreadTeam(1, _work, OPERATION)


@functools.cache
def _team(threads: int) -> ThreadTeam:
    return ThreadTeam(threads, _work, OPERATION)
