"""Collects the steps of a plan, places its values, and lets nodes run inside the operations of others."""

from __future__ import annotations

import dataclasses
from typing import Optional

from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import Graph, Node
from pplc_cli.kernels.graph.shapes import shapes_of
from pplc_cli.kernels.infer.operands import PlanOptions, Unsupported, Value
from pplc_cli.kernels.infer.packing import ACTIVATION_CODES, Weights
from pplc_cli.kernels.infer.steps import Epilogue
from pplc_cli.kernels.simd.arena import Buffer, Slot
from pplc_cli.kernels.simd.rows import padded
from pplc_cli.kernels.simd.steps import Step


class Builder:
    """Collects the steps of a plan for ``n`` images.

    The nodes up to the last one that reads a map are the body, which runs for one image at a time; those behind it are
    the tail, which runs once for all images.

    Attributes:
        shapes: of all values.
        body, tail: the steps.
        images: the number of images that the next step works on.
    """

    def __init__(self, graph: Graph, size: tuple[int, int], n: int, options: PlanOptions, weights: Weights) -> None:
        self.graph, self.n, self.options, self.weights = graph, n, options, weights
        self.shapes = shapes_of(graph, size)
        self.body: list[Step] = []
        self.tail: list[Step] = []
        self._values: dict[str, Value] = {}
        self._readers = graph.readers()
        self._last_reader = {name: node for node in graph.nodes for name in node.inputs}
        self._absorbed: set[str] = set()  # outputs of nodes that run inside others
        spatial = [i for i, node in enumerate(graph.nodes) if any(self.is_map(name) for name in node.inputs)]
        self._body_nodes = max(spatial, default=-1) + 1
        tail_reads = {name for node in graph.nodes[self._body_nodes :] for name in node.inputs} | {graph.output}
        self._crossing = {node.output for node in graph.nodes[: self._body_nodes]} & tail_reads
        self._targets = self._concat_targets()
        shape = self.shapes[graph.input]
        self._values[graph.input] = Value(Slot("input"), shape, shape[2])
        self._steps, self.images = self.body, 1

    def is_map(self, name: str) -> bool:
        """Whether a value has more than one pixel."""
        _, height, width = self.shapes[name]
        return height * width > 1

    def add(self, step: Step) -> None:
        self._steps.append(step)

    def start_tail(self) -> None:
        """Let the following steps be the tail's."""
        self._steps, self.images = self.tail, self.n

    # -- values ------------------------------------------------------------------------------------------------------

    def read(self, name: str) -> Value:
        """Where a value lies.

        Raises:
            Unsupported: it is the network's input, which only convolutions can read.
        """
        value = self._values[name]
        if isinstance(value.buffer, Slot):
            raise Unsupported(tr("a network in which not only convolutions read the images"))
        return value

    def make(self, name: str) -> Value:
        """Where a node writes its result: into its place in a concatenation, or into a buffer of its own."""
        if name in self._targets:
            whole, start = self._targets[name]
            if whole not in self._values:
                self._values[whole] = self._new(whole)
            parent = self._values[whole]
            value = dataclasses.replace(parent, shape=self.shapes[name], start=parent.start + start)
        else:
            value = self._new(name)
        self._values[name] = value
        return value

    def _new(self, name: str) -> Value:
        shape = self.shapes[name]
        ld = padded(shape[0])
        size = 4 * ld * shape[1] * shape[2]
        crosses = name in self._crossing
        return Value(Buffer(size * (self.n if crosses else self.images)), shape, ld, image=size * crosses)

    def _concat_targets(self) -> dict[str, tuple[str, int]]:
        """Values that are written directly into the result of their only reader, a concatenation; with the channel."""
        targets = {}
        makers = {node.output: node.kind for node in self.graph.nodes}
        for node in self.graph.nodes:
            if node.kind != "concat":
                continue
            start = 0
            for name in node.inputs:
                if self._readers[name] == 1 and makers.get(name, "slice") not in ("slice", "flatten", "concat"):
                    targets[name] = node.output, start
                start += self.shapes[name][0]
        return targets

    # -- nodes that run inside the operations of others --------------------------------------------------------------

    def only_reader(self, name: str, kind: str) -> Optional[Node]:
        """The only node that reads a value, if it is of this kind and in the same part of the network."""
        node = self._last_reader.get(name)
        if name in self._crossing or name == self.graph.output or self._readers[name] != 1:
            return None
        return node if node is not None and node.kind == kind else None

    def absorb(self, node: Node) -> str:
        """Let a node run inside the operation that is being planned; returns the name of its result."""
        self._absorbed.add(node.output)
        return node.output

    def absorb_epilogue(self, node: Node) -> tuple[str, Epilogue]:
        """Absorb the addition and the activation behind a node, if there are any.

        Returns:
            The name of the result, and the epilogue.
        """
        name, addend, stride = node.output, None, 0
        addition = self.only_reader(name, "add")
        if addition is not None:
            other = addition.inputs[1 - addition.inputs.index(name)]
            if other != name and other in self._values and self.shapes[other] == self.shapes[name]:
                value = self.read(other)
                addend, stride = value.address, 4 * value.ld
                name = self.absorb(addition)
        name, act = self.absorb_activation(name)
        return name, Epilogue(act, addend or 0, stride)

    def absorb_activation(self, name: str) -> tuple[str, int]:
        """Absorb the activation of a value; returns the name of the result and the activation's code, 0 for none."""
        activation = self.only_reader(name, "activation")
        if activation is None:
            return name, 0
        return self.absorb(activation), ACTIVATION_CODES[activation.options["function"]]
