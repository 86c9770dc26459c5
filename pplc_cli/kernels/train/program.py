"""The operations of training programs, and the compiled function that runs them."""

from __future__ import annotations

import enum

import numpy as np

from pplc_cli.kernels.machine_code import compiled, is_compiled
from pplc_cli.kernels.simd.barrier import barrier
from pplc_cli.kernels.team import ThreadTeam, empty_program
from pplc_cli.kernels.train.ops import batch_norm, convolution, depthwise, elementwise, pooling

# The columns of an operation's row, each int64: addresses, sizes and switches. See :mod:`steps` for their meanings.
FIELDS = """
    code x y g dx w wt dw bias db n h_in w_in ci ho wo co kh kw sh sw ph pw dilation
    in_bn in_act out_bn stats stats_size sums sums_size add finish block half
""".split()  # noqa: SIM905
OPERATION = np.dtype([(name, np.int64) for name in FIELDS])


class Code(enum.IntEnum):
    """The code of an operation, named like its kernel."""

    PACK_DENSE = 0
    PACK_DEPTHWISE = 1
    DENSE = 2
    DENSE_BACKWARD = 3
    DEPTHWISE = 4
    DEPTHWISE_BACKWARD = 5
    REDUCE_DENSE = 6
    REDUCE_DEPTHWISE = 7
    STATISTICS = 8
    LOCAL_MOMENTS = 9
    NORM_FORWARD = 10
    LOCAL_SUMS = 11
    NORM_BACKWARD = 12
    COPY = 13
    COPY_BACKWARD = 14
    SCALE = 15
    SCALE_BACKWARD = 16
    MEAN = 17
    MEAN_BACKWARD = 18
    POOL = 19
    POOL_BACKWARD = 20
    TO_PIXELS = 21
    TO_PLANES = 22
    INTERLEAVE = 23


@compiled(__file__)
def _work(ops, thread, threads, scratch, arrivals):  # type: ignore[no-untyped-def]
    """Run one thread's part of every operation of a program; a barrier follows each operation."""
    for i in range(len(ops)):
        op = ops[i]
        code = op.code
        if code == Code.DENSE:
            convolution.forward(op, scratch, thread, threads)
        elif code == Code.DENSE_BACKWARD:
            convolution.backward(op, scratch, thread, threads)
        elif code == Code.DEPTHWISE:
            depthwise.forward(op, scratch, thread, threads)
        elif code == Code.DEPTHWISE_BACKWARD:
            depthwise.backward(op, scratch, thread, threads)
        elif code == Code.PACK_DENSE:
            convolution.pack(op, thread, threads)
        elif code == Code.PACK_DEPTHWISE:
            depthwise.pack(op, thread, threads)
        elif code == Code.REDUCE_DENSE:
            convolution.reduce_weights(op, thread, threads)
        elif code == Code.REDUCE_DEPTHWISE:
            depthwise.reduce_weights(op, thread, threads)
        elif code == Code.STATISTICS:
            batch_norm.statistics(op, scratch, thread, threads)
        elif code == Code.LOCAL_MOMENTS:
            batch_norm.local_moments(op, thread, threads)
        elif code == Code.NORM_FORWARD:
            batch_norm.norm_forward(op, thread, threads)
        elif code == Code.LOCAL_SUMS:
            batch_norm.local_sums(op, thread, threads)
        elif code == Code.NORM_BACKWARD:
            batch_norm.norm_backward(op, thread, threads)
        elif code == Code.COPY:
            elementwise.copy(op, scratch, thread, threads)
        elif code == Code.COPY_BACKWARD:
            elementwise.copy_backward(op, scratch, thread, threads)
        elif code == Code.SCALE:
            elementwise.scale(op, scratch, thread, threads)
        elif code == Code.SCALE_BACKWARD:
            elementwise.scale_backward(op, scratch, thread, threads)
        elif code == Code.MEAN:
            pooling.mean(op, scratch, thread, threads)
        elif code == Code.MEAN_BACKWARD:
            pooling.mean_backward(op, scratch, thread, threads)
        elif code == Code.POOL:
            pooling.pool(op, scratch, thread, threads)
        elif code == Code.POOL_BACKWARD:
            pooling.pool_backward(op, scratch, thread, threads)
        elif code == Code.TO_PIXELS:
            elementwise.to_pixels(op, thread, threads)
        elif code == Code.TO_PLANES:
            elementwise.to_planes(op, thread, threads)
        elif code == Code.INTERLEAVE:
            elementwise.interleave(op, scratch, thread, threads)
        barrier(arrivals, threads)


def is_ready() -> bool:
    """Whether the kernels for this CPU are in memory or in the cache folder."""
    return is_compiled(_work, *empty_program(OPERATION))


def make_team(threads: int) -> ThreadTeam:
    """A team of threads for training programs."""
    return ThreadTeam(threads, _work, OPERATION)
