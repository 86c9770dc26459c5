"""From a graph to the operations that compute it for a number of images.

What follows a convolution and needs nothing but its result runs inside it: activation, a value to add, and behind a
depthwise convolution the pointwise one. The part with height and width runs image by image, so that what one
operation makes is in the cache when the next one reads it; the tail behind the pooling runs for all images at once,
so that its weights are read once.
"""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np

from pplc_cli.kernels.graph.graph import Graph, Node
from pplc_cli.kernels.graph.shapes import shapes_of
from pplc_cli.kernels.infer.operands import Fields, PlanOptions, Unsupported, Value
from pplc_cli.kernels.infer.ops.convolution import APART, planar_width
from pplc_cli.kernels.infer.ops.tiles import BFLOAT16, CHEAP, FLOAT32, INT8
from pplc_cli.kernels.infer.packing import ACTIVATION_CODES, Weights, as_matrix, packed, shift, taps
from pplc_cli.kernels.infer.program import Code
from pplc_cli.kernels.simd.arena import Buffer, Field, Slot, place
from pplc_cli.kernels.simd.llvm import LANES
from pplc_cli.kernels.simd.rows import padded

BLOCK_ROWS = 64  # pixels whose products are computed together; their inputs stay in the second cache
PLANAR_CHANNELS = 4
KINDS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
DEPTHWISE_SIZES, DEPTHWISE_STRIDES = (1, 3, 5, 7), (1, 2)


class Plan:
    """Operations for ``n`` images.

    Attributes:
        body: for each image.
        tail: for all of them.
        products: what goes into products over maps, by their number in the body.
        arena: bytes of memory that the values need.
        scratch: bytes that each thread needs.
    """

    def __init__(self, graph: Graph, size: tuple[int, int], n: int, how: PlanOptions, weights: Weights) -> None:
        self.graph, self.n, self.how, self.threads, self.weights = graph, n, how, how.threads, weights
        self.shapes = shapes_of(graph, size)
        self.body: list[Fields] = []
        self.tail: list[Fields] = []
        self.products: dict[int, str] = {}
        self.scratch = 0
        self._values: dict[str, Value] = {}
        self._readers = graph.readers()
        self._next = {name: node for node in graph.nodes for name in node.inputs}  # the last one that reads it
        self._done: set[str] = set()  # nodes that run inside others
        spatial = [i for i, node in enumerate(graph.nodes) if any(self._is_map(name) for name in node.inputs)]
        self._tail_from = max(spatial, default=-1) + 1
        tail_reads = {name for node in graph.nodes[self._tail_from :] for name in node.inputs} | {graph.output}
        self._crossing = {node.output for node in graph.nodes[: self._tail_from]} & tail_reads
        self._targets = self._concat_targets()
        first = self.shapes[graph.input]
        self._values[graph.input] = Value(Slot("input"), first, first[2])
        for index, node in enumerate(graph.nodes):
            self._steps, self._images = (self.body, 1) if index < self._tail_from else (self.tail, n)
            if node.output not in self._done:
                getattr(self, f"_{node.kind}")(node)
        self._steps, self._images = self.tail, n
        self._write_output()
        # What the tail reads is written image by image: the next one's body must not work in the same place.
        kept = {name: self._values[name].address for name in self._crossing if name in self._values}
        self.arena = place([kept, *self.body, *self.tail])

    def _is_map(self, name: str) -> bool:
        _, height, width = self.shapes[name]
        return height * width > 1

    # -- values ------------------------------------------------------------------------------------------------------

    def _op(self, code: Code, **fields: Field) -> None:
        self._steps.append({"code": code, **fields})

    def _read(self, name: str) -> Value:
        value = self._values[name]
        if isinstance(value.buffer, Slot):
            raise Unsupported("a network whose images are read by more than convolutions of few channels")
        return value

    def _make(self, name: str) -> Value:
        """Where a node writes its result: in memory of its own, or in its place in a concatenation."""
        if name in self._targets:
            whole, start = self._targets[name]
            if whole not in self._values:
                self._values[whole] = self._new(whole)
            place_of = self._values[whole]
            value = dataclasses.replace(place_of, shape=self.shapes[name], start=place_of.start + start)
        else:
            value = self._new(name)
        self._values[name] = value
        return value

    def _new(self, name: str) -> Value:
        shape = self.shapes[name]
        ld = padded(shape[0])
        row = 4 * ld * shape[1] * shape[2]
        crosses = name in self._crossing
        return Value(Buffer(row * (self.n if crosses else self._images)), shape, ld, image=row * crosses)

    def _concat_targets(self) -> dict[str, tuple[str, int]]:
        """Values that lie from the start where their only reader, a concatenation, wants them."""
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

    def _only_reader(self, name: str, kind: str) -> Optional[Node]:
        """The one node that reads a value, where it is of this kind and in the same part of the network."""
        node = self._next.get(name)
        here = name not in self._crossing and name != self.graph.output
        return node if here and node is not None and node.kind == kind and self._readers[name] == 1 else None

    def _absorb(self, node: Node) -> tuple[str, Fields]:
        """The value behind what a node's result goes through alone, and the fields that say what."""
        name = node.output
        fields: Fields = {}
        add = self._only_reader(name, "add")
        if add is not None:
            other = add.inputs[1 - add.inputs.index(name)]
            if other != name and other in self._values and self.shapes[other] == self.shapes[name]:
                more = self._read(other)
                fields.update(more=more.address, ldm=4 * more.ld)
                name = self._take(add)
        name, behind = self._activated(name)
        return name, {**fields, **behind}

    def _activated(self, name: str) -> tuple[str, Fields]:
        """The same for an activation alone."""
        activation = self._only_reader(name, "activation")
        if activation is None:
            return name, {}
        return self._take(activation), {"act": ACTIVATION_CODES[activation.options["function"]]}

    def _take(self, node: Node) -> str:
        self._done.add(node.output)
        return node.output

    def _needs(self, size: int) -> None:
        self.scratch = max(self.scratch, size + 256)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _conv(self, node: Node) -> None:
        weight, groups = node.weights["weight"], node.options["groups"]
        channels = self.shapes[node.inputs[0]][0]
        sh, sw = node.options["stride"]
        square = weight.shape[2] == weight.shape[3] and sh == sw
        plain = square and sh in DEPTHWISE_STRIDES and node.options["dilation"] == (1, 1)
        if plain and groups > 1 and groups == channels == len(weight) and weight.shape[2] in DEPTHWISE_SIZES:
            self._depthwise(node)
        else:
            self._dense(node)

    def _geometry(self, node: Node) -> Fields:
        """Sizes of a convolution."""
        ci, h_in, w_in = self.shapes[node.inputs[0]]
        co, ho, wo = self.shapes[node.output]
        kh, kw = node.weights["weight"].shape[2:]
        (sh, sw), (top, left, *_) = node.options["stride"], node.options["padding"]
        dh, dw = node.options["dilation"]
        sizes = dict(ci=ci, h_in=h_in, w_in=w_in, co=co, ho=ho, wo=wo, kh=kh, kw=kw)
        return {**sizes, "sh": sh, "sw": sw, "pt": top, "pl": left, "dh": dh, "dw": dw}

    def _factors(self, node: Node, kind: int = FLOAT32, *, planar: bool = False) -> Fields:
        """The fields of a product's weights."""
        weight, bias = node.weights["weight"], node.weights.get("bias")
        span = self.how.activation_ranges.get(node.inputs[0], (0.0, 0.0))

        def make() -> tuple[np.ndarray, ...]:
            matrix = weight if weight.ndim == 2 else as_matrix(weight, node.options["groups"], planar=planar)
            return packed(matrix, bias, kind, span)

        addresses = self.weights.addresses(node, f"product {kind}", make)
        return {"kind": kind, **dict(zip(("w", "bias", "factor", "quant"), addresses))}

    def _kind(self, node: Node) -> int:
        """The precision of a layer's products; those after the pooling are few and decide most: float32."""
        kind = KINDS[self.how.precision]
        known = kind != INT8 or node.inputs[0] in self.how.activation_ranges
        return kind if known and self._is_map(node.inputs[0]) else FLOAT32

    def _dense(self, node: Node) -> None:
        weight = node.weights["weight"]
        geometry = self._geometry(node)
        ci = self.shapes[node.inputs[0]][0]
        k = ci * weight.shape[2] * weight.shape[3]
        source = self._values[node.inputs[0]]
        planar = isinstance(source.buffer, Slot)
        name, fields = self._absorb(node)
        if planar and (ci > PLANAR_CHANNELS or "more" in fields):
            raise Unsupported("a first convolution of many channels")
        fields.update(self._factors(node, FLOAT32 if planar else self._kind(node), planar=planar))
        target = self._make(name)
        if planar:
            _, _, w_in = self.shapes[node.inputs[0]]
            pixels = w_in + 2 * node.options["padding"][1] + weight.shape[3]
            row = max(ci * planar_width(pixels, 1), planar_width(pixels, ci))
            self._needs(padded(k) * 8 + weight.shape[2] * row)
            self._op(Code.PLANAR, **geometry, **fields, n=1, x=Slot("input"), **self._out(target))
            return
        if self._is_map(node.inputs[0]):
            self.products[len(self.body)] = node.inputs[0]
        self._product(geometry, fields, source, target, k, gathered=not _is_pointwise(node))

    def _product(
        self, geometry: Fields, fields: Fields, source: Value, target: Value, k: int, *, gathered: bool = False
    ) -> None:
        rows = target.rows * self._images
        # Few rows, or many weights a row: the threads share the weights rather than each reading all of them.
        split = int(self.threads > 1 and (rows < 16 * self.threads or k * target.shape[0] > 64 * rows * 16))
        copies = int(gathered) + (fields["kind"] != FLOAT32)
        self._needs(copies * BLOCK_ROWS * (padded(k) * 4 + APART))
        self._op(
            Code.DENSE,
            **{**geometry, **fields},
            n=self._images,
            block=BLOCK_ROWS,
            split=split,
            x=source.address,
            ldx=4 * source.ld,
            **self._out(target),
        )

    def _linear(self, node: Node) -> None:
        inputs, outputs = node.weights["weight"].shape
        name, fields = self._absorb(node)
        fields.update(self._factors(node))
        geometry: Fields = dict(ci=inputs, h_in=1, w_in=1, co=outputs, ho=1, wo=1, kh=1, kw=1, sh=1, sw=1)
        self._product(geometry, fields, self._read(node.inputs[0]), self._make(name), inputs)

    @staticmethod
    def _out(target: Value) -> Fields:
        return {"y": target.address, "ldy": 4 * target.ld, "columns": target.columns}

    def _depthwise(self, node: Node) -> None:
        channels, _, w_in = self.shapes[node.inputs[0]]
        _, ho, wo = self.shapes[node.output]
        geometry, source = self._geometry(node), self._read(node.inputs[0])
        name, fields = self._activated(node.output)
        weight, bias = node.weights["weight"], node.weights.get("bias")
        addresses = self.weights.addresses(node, "taps", lambda: (taps(weight), shift(bias, channels)))
        fields.update(zip(("w", "bias"), addresses))
        lines = max(1, BLOCK_ROWS // wo)
        split = int(self.threads > 1 and ho < 8 * self.threads and padded(channels) // LANES >= 2 * self.threads)
        behind = self._only_reader(name, "conv")
        # Narrow results are stored as they leave the registers, where costly activations have not been applied yet.
        fits = fields.get("act", 0) in CHEAP or self.how.precision == "float32"
        fused = self.how.fused and fits and not split
        if fused and behind is not None and _is_pointwise(behind) and behind.options["groups"] == 1:
            self._take(behind)
            name, more = self._absorb(behind)
            more.update(self._factors(behind, self._kind(behind)))
            fields.update({key + "2" if key in ("act", "w", "bias") else key: value for key, value in more.items()})
            geometry["co"] = len(behind.weights["weight"])
        size = int(node.weights["weight"].shape[2])
        stride = node.options["stride"][0]
        pixel = padded(channels) * 4 + APART
        row = max((wo - 1) * stride + size, node.options["padding"][1] + w_in) * pixel
        places = (lines - 1) * stride + size
        self._needs(8 * places + 64 + (places + 1) * row + lines * wo * pixel)
        self._op(
            Code.DEPTHWISE,
            **{**geometry, **fields},
            n=self._images,
            block=lines,
            split=split,
            x=source.address,
            ldx=4 * source.ld,
            **self._out(self._make(name)),
        )

    def _row_fields(self, source: Value, target: Value) -> Fields:
        fields: Fields = {"x": source.address, "ldx": 4 * source.ld, "ci": target.shape[0]}
        return {**fields, **self._out(target)}

    def _mean(self, node: Node) -> None:
        source = self._read(node.inputs[0])
        target = self._make(node.output)
        self._op(Code.MEAN, n=self._images, h_in=source.rows, **self._row_fields(source, target))

    def _multiply(self, node: Node) -> None:
        one, gate = (self._read(name) for name in node.inputs)
        if one.rows < gate.rows:
            one, gate = gate, one
        rows = one.rows if gate.rows < one.rows else 1
        if gate.rows not in (1, one.rows):
            raise Unsupported(f"a product of {one.shape} and {gate.shape}")
        name, fields = self._activated(node.output)
        target = self._make(name)
        n = self._images * one.rows // rows
        fields.update(more=gate.address, ldm=4 * gate.ld)
        self._op(Code.SCALE, n=n, h_in=rows, **fields, **self._row_fields(one, target))

    def _combine(self, sources: list[Value], target: Value, **fields: Field) -> None:
        if len(sources) > 1:
            fields.update(more=sources[1].address, ldm=4 * sources[1].ld)
        n = self._images * target.rows
        self._op(Code.COMBINE, n=n, **fields, **self._row_fields(sources[0], target))

    def _add(self, node: Node) -> None:
        sources = [self._read(name) for name in node.inputs]
        if sources[0].shape != sources[1].shape:
            raise Unsupported(f"a sum of {sources[0].shape} and {sources[1].shape}")
        name, fields = self._activated(node.output)
        self._combine(sources, self._make(name), **fields)

    def _activation(self, node: Node) -> None:
        source = self._read(node.inputs[0])
        self._combine([source], self._make(node.output), act=ACTIVATION_CODES[node.options["function"]])

    def _concat(self, node: Node) -> None:
        if node.output not in self._values:
            self._make(node.output)
        whole, start = self._values[node.output], 0
        for name in node.inputs:
            if name not in self._targets:
                part = dataclasses.replace(whole, shape=self.shapes[name], start=whole.start + start)
                self._combine([self._read(name)], part)
            start += self.shapes[name][0]

    def _slice(self, node: Node) -> None:
        whole = self._read(node.inputs[0])
        start = whole.start + node.options["start"]
        self._values[node.output] = dataclasses.replace(whole, shape=self.shapes[node.output], start=start)

    def _shuffle(self, node: Node) -> None:
        source = self._read(node.inputs[0])
        target = self._make(node.output)
        n = self._images * source.rows
        self._op(Code.SHUFFLE, n=n, kh=node.options["groups"], **self._row_fields(source, target))

    def _pool(self, node: Node) -> None:
        source, target = self._read(node.inputs[0]), self._make(node.output)
        (kh, kw), (sh, sw), (top, left, *_) = (node.options[key] for key in ("kernel", "stride", "padding"))
        _, h_in, w_in = source.shape
        _, ho, wo = target.shape
        sizes: Fields = dict(h_in=h_in, w_in=w_in, ho=ho, wo=wo, kh=kh, kw=kw, sh=sh, sw=sw, pt=top, pl=left)
        sizes.update(w=int(node.options["largest"]), split=int(node.options["count_padding"]))
        self._op(Code.POOL, n=self._images, **sizes, **self._row_fields(source, target))

    def _flatten(self, node: Node) -> None:
        source = self._read(node.inputs[0])
        if source.rows != 1:
            raise Unsupported("a map that is flattened before it is pooled")
        self._values[node.output] = source

    def _scale(self, node: Node) -> None:
        source, channels = self._read(node.inputs[0]), self.shapes[node.output][0]
        factor = np.full(channels, node.options["factor"], np.float32)
        (more,) = self.weights.addresses(node, "factor", lambda: (shift(factor, channels),))
        target = self._make(node.output)
        n = self._images * source.rows
        self._op(Code.SCALE, n=1, h_in=n, more=more, **self._row_fields(source, target))

    def _batch_norm(self, node: Node) -> None:
        raise Unsupported("batch norm; simplify the graph first")

    def _softmax(self, node: Node) -> None:
        source = self._read(node.inputs[0])
        if source.rows != 1:
            raise Unsupported("softmax over maps")
        target = self._make(node.output)
        self._op(Code.SOFTMAX, n=self._images, **self._row_fields(source, target))

    def _write_output(self) -> None:
        """The result without padding."""
        last, channels = self._values[self.graph.output], self.shapes[self.graph.output][0]
        if self._is_map(self.graph.output):
            raise Unsupported("an output with height and width")
        target = Value(Slot("output"), (channels, 1, 1), channels)
        self._combine([last], target)


def _is_pointwise(node: Node) -> bool:
    """Whether a convolution's patches are the pixels themselves."""
    plain = node.options["stride"] == (1, 1) and not any(node.options["padding"])
    return plain and node.weights["weight"].shape[2:] == (1, 1)
