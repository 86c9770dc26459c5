"""Loops in LLVM that carry vectors from one iteration to the next."""

from __future__ import annotations

from typing import Any, Optional

from llvmlite import ir

from pplc_cli.kernels.simd.llvm import LANES, i64, pointer, vec


def rows_of(builder: Any, table: Any, offset: Any, size: int) -> list:
    """Load ``size`` addresses of rows from a table, and add ``offset`` to each."""
    return [
        builder.add(builder.load(pointer(builder, builder.add(table, ir.Constant(i64, 8 * i)), i64)), offset)
        for i in range(size)
    ]


def vec_at(builder: Any, address: Any) -> Any:
    return builder.load(pointer(builder, address, vec), align=4)


class Loop:
    """``for index in range(count)`` in LLVM; carries vectors, at first ``start``, from iteration to iteration."""

    def __init__(self, builder: Any, count: Any, carried: int, start: Optional[list] = None) -> None:
        self.builder, self.count = builder, count
        self.entry, self.body = builder.block, builder.append_basic_block("loop")
        self.done = builder.append_basic_block("done")
        self.zero = ir.Constant(vec, [0.0] * LANES)
        self.start = start or [self.zero] * carried
        builder.cbranch(builder.icmp_signed(">", count, ir.Constant(i64, 0)), self.body, self.done)
        builder.position_at_end(self.body)
        self.index = builder.phi(i64)
        self.carried = [builder.phi(vec) for _ in range(carried)]

    def end(self, new: list) -> list:
        """Close the loop, and return the carried vectors after it."""
        builder, last = self.builder, self.builder.block
        after = builder.add(self.index, ir.Constant(i64, 1))
        builder.cbranch(builder.icmp_signed("<", after, self.count), self.body, self.done)
        self.index.add_incoming(ir.Constant(i64, 0), self.entry)
        self.index.add_incoming(after, last)
        builder.position_at_end(self.done)
        results = []
        for phi, value, first in zip(self.carried, new, self.start):
            phi.add_incoming(first, self.entry)
            phi.add_incoming(value, last)
            result = builder.phi(vec)
            result.add_incoming(first, self.entry)
            result.add_incoming(value, last)
            results.append(result)
        return results
