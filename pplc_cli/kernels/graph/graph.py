"""An exported network as a list of nodes over named values, with its weights as arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

import numpy as np

from pplc_cli.base.language.messages import tr

ACTIVATIONS = (
    "relu",
    "hardswish",
    "relu6",
    "hardsigmoid",
    "sigmoid",
    "swish",
    "gelu",
)  # with Paddle's default arguments


@dataclasses.dataclass
class Node:
    """One operation.

    Attributes:
        kind: the operation; its weights and options:

            - ``conv``: ``weight`` (outputs, inputs / groups, kh, kw), perhaps ``bias`` (outputs,); ``stride`` (h, w),
              ``padding`` (top, left, bottom, right), ``dilation`` (h, w), ``groups``
            - ``batch_norm``: ``weight``, ``bias``, ``mean``, ``variance`` (channels,); ``epsilon``
            - ``activation``: ``function``, one of :data:`ACTIVATIONS`
            - ``pool``: ``largest`` (else the mean), ``kernel``, ``stride``, ``padding`` as for conv, ``ceil``,
              ``count_padding``
            - ``mean``: over height and width, to (N, C, 1, 1)
            - ``add``, ``multiply``: of two values, equal in shape or the second (N, C, 1, 1)
            - ``scale``: by ``factor``
            - ``concat``: of channels
            - ``slice``: channels ``start`` to ``stop``
            - ``shuffle``: channels in ``groups``, groups and places within them exchanged
            - ``flatten``: to (N, C)
            - ``linear``: ``weight`` (inputs, outputs) and perhaps ``bias``
            - ``softmax``: over the last axis
        inputs: values that it reads.
        output: the value that it computes.
        name: of the layer, where the file has one.
        weights: arrays by the names above, float32.
        options: plain data by the names above.
    """

    kind: str
    inputs: list[str]
    output: str
    name: str = ""
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Graph:
    """A network for inference: one input, images, and one output, in the order in which the nodes run.

    Attributes:
        input: name of the images, float32 (N, 3, H, W), normalised.
        output: name of the result, float32 (N, classes): probabilities.
        nodes: each after those whose results it reads.
        shapes: of every value; -1 for the number of images, and for height and width if images of any size are
            accepted.
    """

    input: str
    output: str
    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]]

    @property
    def classes(self) -> int:
        """How many numbers the output has per image."""
        return self.shapes[self.output][-1]

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """Height and width of the images, or None if the network accepts images of any size."""
        height, width = self.shapes[self.input][2:]
        return (height, width) if height > 0 and width > 0 else None

    def readers(self) -> dict[str, int]:
        """How many inputs of nodes read each value; being the network's output counts as one more."""
        counts = {self.output: 1}
        for node in self.nodes:
            for name in node.inputs:
                counts[name] = counts.get(name, 0) + 1
        return counts

    @property
    def classifier(self) -> Optional[Node]:
        """The linear layer behind which there is only a softmax; None: there is none, as in an ensemble."""
        last = next((node for node in reversed(self.nodes) if node.kind != "softmax"), None)
        return last if last is not None and last.kind == "linear" else None

    def features(self) -> Graph:
        """The network up to its penultimate layer, whose output is (N, channels): 1280 numbers for PP-LCNet.

        Raises:
            ValueError: it has no linear layer at its end.
        """
        last = self.classifier
        if last is None:
            raise ValueError(tr("the network has no linear layer, and so no penultimate-layer embedding"))
        end = self.nodes.index(last)
        return Graph(self.input, last.inputs[0], self.nodes[:end], self.shapes)
