"""Steps of a plan: operations that write themselves into the rows that kernels read, and calls of Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pplc_cli.kernels.simd.arena import Buffer, Field

Row = dict[str, Field]


class Patches:
    """What follows from the sizes of a convolution, as the ``Geometry`` of training and that of inference have them."""

    inputs: int
    size: tuple[int, int]
    result: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def k(self) -> int:
        """How many numbers a patch has."""
        return self.kernel[0] * self.kernel[1] * self.inputs

    @property
    def pointwise(self) -> bool:
        """Whether the patches are the pixels themselves."""
        plain = self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)
        return plain and self.result == self.size


class Step:
    """An operation. Subclasses are dataclasses, one per code, whose fields are named after their meaning.

    All kernels read rows of the same columns, whose meaning depends on the code. Only :meth:`row` maps fields to
    columns. The dataclasses are not frozen, since that would make planning slower by a tenth.
    """

    code: ClassVar[int]

    def row(self) -> Row:
        """The values by column; columns left out are 0."""
        raise NotImplementedError

    @functools.cached_property
    def record(self) -> Row:
        """The whole row, with the code; made once, since a plan and all its runs need it."""
        return {"code": self.code, **self.row()}

    def scratch(self) -> int:
        """Bytes of scratch memory that the operation needs per thread."""
        return 0


@dataclass(frozen=True)
class PythonStep:
    """A call between operations: ``function(run)``, which uses ``buffers``."""

    function: Callable[[Any], None]
    buffers: tuple[Buffer, ...] = ()
