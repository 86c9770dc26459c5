"""Views of stored results, with batch norm and activation applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from pplc_cli.kernels.simd.arena import Buffer, Field
from pplc_cli.kernels.train.steps.parts import Channels, Source
from pplc_cli.kernels.train.traced_graph import Node, Shape


@dataclass
class Norm:
    """A batch norm that a view applies."""

    layer: Any
    batch: bool
    coefficients: Buffer
    moments: Optional[Buffer] = None
    sums: Optional[Buffer] = None


@dataclass
class View:
    """``act(norm(data))`` of ``shape``; ``readers`` have yet to add their part of the gradient."""

    data: Field
    shape: Shape
    wants_gradient: bool
    norm: Optional[Norm] = None
    act: int = 0
    readers: int = 0
    gradient: Optional[Field] = None
    node: Optional[Node] = None

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[2] * self.shape[3]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.shape[1] * 4

    @property
    def coefficients(self) -> Field:
        """Those of its batch norm, 0 for none."""
        return self.norm.coefficients if self.norm else 0

    @property
    def source(self) -> Source:
        """How an operation reads it."""
        return Source(self.data, self.coefficients, self.act)

    @property
    def channels(self) -> Channels:
        """All of it, to be copied."""
        return Channels.whole(self.rows, self.shape[1])
