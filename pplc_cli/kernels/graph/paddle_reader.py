"""Reads networks exported by Paddle 3, ``inference.json`` (PIR) and ``inference.pdiparams``, as a :class:`Graph`.

The program is JSON: a list of operations over numbered values. For the weights see :mod:`paddle_weights`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pplc_cli.base.errors import ModelError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded
from pplc_cli.kernels.graph.graph import ACTIVATIONS, Graph, Node
from pplc_cli.kernels.graph.paddle_weights import UnknownType, read_weights
from pplc_cli.kernels.graph.validate import check_graph

_LARGEST = 1 << 25  # bytes of the program; the deepest network of the zoo has a hundredth


def read_paddle(folder: Path) -> Graph:
    """Read the network of an exported folder; the graph is valid, see :func:`check_graph`.

    Raises:
        UnknownOperation: the network has an operation that is not supported; the message names it.
        ModelError: a file is missing or damaged.
    """
    program, weights = folder / "inference.json", folder / "inference.pdiparams"
    read = program
    try:
        content = json.loads(read_bounded(program, _LARGEST))
        ops = content["program"]["regions"][0]["blocks"][0]["ops"]
        shapes = _parameters(ops)
        read = weights
        arrays = read_weights(weights, shapes)
        read = program
        graph = _Reader(ops, arrays).graph()
        check_graph(graph)
        return graph
    except (_Unknown, UnknownType) as error:
        raise UnknownOperation(
            tr("{file}: pplc cannot read {operation}", file=program, operation=one_line(error))
        ) from None
    except ModelError as error:
        raise ModelError(f"{program}: {one_line(error)}") from None
    except OSError as error:
        raise ModelError(f"{read}: {error.strerror}") from None
    except MemoryError:
        raise ModelError(tr("{file}: there is not enough memory to read it", file=read)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, struct.error) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(
            tr(
                "{file}: is damaged, or not in Paddle 3's export format: {reason}; export it again",
                file=read,
                reason=reason,
            )
        ) from None


class UnknownOperation(ModelError):
    """An undamaged network has an operation that is not supported here."""


class _Unknown(Exception):
    """An operation, or a form of it, is not supported."""


def _plain(value: Any) -> Any:
    """An attribute's content without Paddle's type marks."""
    if isinstance(value, dict):
        return _plain(value.get("D"))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _parameters(ops: list[dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    """The shapes of the program's weights by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op in ops:
        if op["#"] == "p":
            name = op["A"][3]
            if name in shapes:
                raise ValueError(f"two weights are named {name}")
            shapes[name] = _shape(op["O"]["TT"])
    return shapes


class _Op:
    """An operation of the program, with its attributes as plain data."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.kind = (raw["#"].partition(".")[2] or raw["#"]).rstrip("_")  # relu_ is relu in place
        self.attributes = {a["N"]: _plain(a["AT"]) for a in raw["A"]} if raw["#"] != "p" else {}
        self.inputs = [i["%"] for i in raw["I"]] if raw["#"] != "p" else []
        made = raw["O"] if isinstance(raw["O"], list) else [raw["O"]]
        self.outputs = [o["%"] for o in made]
        self.shapes = [_shape(o["TT"]) for o in made]
        self.parameter = raw["A"][3] if raw["#"] == "p" else ""

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def unknown(self, what: str) -> NoReturn:
        """``what``: the unknown form, or an attribute with its value."""
        raise _Unknown(tr("{operation} with {form}", operation=self.kind, form=what))


def _shape(kind: dict[str, Any]) -> tuple[int, ...]:
    return tuple(kind["D"][1]) if kind["#"].endswith("t_dtensor") else ()


class _Reader:
    """Reads the operations one by one."""

    def __init__(self, ops: list[dict[str, Any]], weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.constants: dict[int, Any] = {}  # arrays and numbers by the value's number
        self.lists: dict[int, list[Any]] = {}
        self.input = self.output = ""
        self.names: dict[int, str] = {}  # of values that are the same as an earlier one
        made: set[int] = set()
        for raw in ops:
            op = _Op(raw)
            read = _READERS.get(op.kind)
            if read is None:
                raise _Unknown(tr("the operation {operation}", operation=op.kind))
            if not made.isdisjoint(op.outputs):
                raise ValueError(f"{op.kind} computes a value that exists already")
            made.update(op.outputs)
            read(self, op)

    def graph(self) -> Graph:
        if not self.input or not self.output:
            raise ValueError("the program has no input or no output")
        return Graph(self.input, self.output, self.nodes, self.shapes)

    # -- values ------------------------------------------------------------------------------------------------------

    def _value(self, number: int) -> str:
        return self.names.get(number, f"v{number}")

    def _array(self, op: _Op, index: int) -> np.ndarray:
        value = self.constants.get(op.inputs[index])
        if not isinstance(value, np.ndarray):
            op.unknown(tr("computed weights"))
        return value

    def _add_node(self, op: _Op, kind: str, inputs: int = 1, **options: Any) -> Node:
        for number in op.inputs[:inputs]:
            if number in self.constants:
                op.unknown(tr("a constant where data is expected"))
        node = Node(kind, [self._value(n) for n in op.inputs[:inputs]], f"v{op.outputs[0]}", options=options)
        node.name = str(op.attributes.get("struct_name", "")).strip("/")
        self.nodes.append(node)
        self.shapes[node.output] = op.shapes[0]
        return node

    # -- operations, by Paddle's names --------------------------------------------------------------------------------

    def _p(self, op: _Op) -> None:
        self.constants[op.outputs[0]] = self.weights[op.parameter]

    def _data(self, op: _Op) -> None:
        if self.input:
            op.unknown(tr("a second input"))
        self.input = f"v{op.outputs[0]}"
        self.shapes[self.input] = tuple(op["shape"])

    def _fetch(self, op: _Op) -> None:
        if self.output:
            op.unknown(tr("a second output"))
        self.output = self._value(op.inputs[0])

    def _full(self, op: _Op) -> None:
        self.constants[op.outputs[0]] = float(op["value"])

    def _full_int_array(self, op: _Op) -> None:
        self.constants[op.outputs[0]] = [int(v) for v in op["value"]]

    def _combine(self, op: _Op) -> None:
        self.lists[op.outputs[0]] = list(op.inputs)

    def _conv2d(self, op: _Op) -> None:
        padding = op["paddings"]
        if op["padding_algorithm"] != "EXPLICIT" or op["data_format"] != "NCHW":
            op.unknown(f"padding_algorithm {op['padding_algorithm']}, data_format {op['data_format']}")
        if len(padding) == 2:
            padding = [padding[0], padding[0], padding[1], padding[1]]
        top, bottom, left, right = padding
        weight = self._array(op, 1)
        options: dict[str, Any] = {
            "stride": tuple(op["strides"]),
            "padding": (top, left, bottom, right),
            "dilation": tuple(op["dilations"]),
        }
        self._add_node(op, "conv", **options, groups=op["groups"]).weights["weight"] = weight

    def _batch_norm(self, op: _Op) -> None:
        if not op["is_test"] or op["data_format"] != "NCHW":
            op.unknown(f"is_test {op['is_test']}, data_format {op['data_format']}")
        node = self._add_node(op, "batch_norm", epsilon=op["epsilon"])
        for index, name in enumerate(("mean", "variance", "weight", "bias"), 1):
            node.weights[name] = self._array(op, index)

    def _activation(self, op: _Op) -> None:
        if op.kind == "gelu" and op["approximate"]:
            op.unknown("approximate true")
        if op.kind == "hardsigmoid" and not (abs(op["slope"] - 1 / 6) <= 1e-6 and op["offset"] == 0.5):
            op.unknown(f"slope {op['slope']}")
        self._add_node(op, "activation", function="swish" if op.kind == "silu" else op.kind)

    def _pool2d(self, op: _Op) -> None:
        largest, kernel = op["pooling_type"] == "max", self.constants[op.inputs[1]]
        if op["pooling_type"] not in ("max", "avg"):
            op.unknown(f"pooling_type {op['pooling_type']}")
        if op["global_pooling"] or op["adaptive"]:
            if largest or (op["adaptive"] and kernel != [1, 1]):
                op.unknown(f"adaptive size {kernel}")
            self._add_node(op, "mean")
            return
        if op["padding_algorithm"] != "EXPLICIT" or op["data_format"] != "NCHW" or len(op["paddings"]) != 2:
            op.unknown(
                f"paddings {op['paddings']}, padding_algorithm {op['padding_algorithm']}, "
                f"data_format {op['data_format']}"
            )
        top, left = op["paddings"]
        window: dict[str, Any] = {
            "kernel": tuple(kernel),
            "stride": tuple(op["strides"]),
            "padding": (top, left, top, left),
        }
        self._add_node(op, "pool", largest=largest, **window, ceil=op["ceil_mode"], count_padding=not op["exclusive"])

    def _add(self, op: _Op) -> None:
        value = self.constants.get(op.inputs[1])
        if not isinstance(value, np.ndarray):
            self._add_node(op, "add", 2)
            return
        before = self.nodes[-1]  # a constant right behind its layer is the bias
        if (
            before.output != self._value(op.inputs[0])
            or before.kind not in ("conv", "linear")
            or "bias" in before.weights
        ):
            op.unknown(tr("a constant that is not a bias"))
        before.weights["bias"] = value.reshape(-1)
        self.names[op.outputs[0]] = before.output

    def _multiply(self, op: _Op) -> None:
        self._add_node(op, "multiply", 2)

    def _reshape(self, op: _Op) -> None:
        array = self.constants.get(op.inputs[0])
        shape = self.constants[op.inputs[1]]
        if isinstance(array, np.ndarray):
            self.constants[op.outputs[0]] = array.reshape([array.size if s == -1 else s for s in shape])
        elif len(shape) == 5:  # the first of channel shuffle's three steps
            self.constants[op.outputs[0]] = ("groups", shape[1], op.inputs[0])
        elif isinstance(array, tuple) and array[0] == "shuffled":
            node = self._add_node(op, "shuffle", 0, groups=array[1])
            node.inputs = [self._value(array[2])]
        elif len(shape) == 2 or shape[2:] == [1, 1]:
            self._add_node(op, "flatten")
        else:
            op.unknown(f"shape {shape}")

    def _transpose(self, op: _Op) -> None:
        value = self.constants.get(op.inputs[0])
        if not (isinstance(value, tuple) and value[0] == "groups" and op["perm"] == [0, 2, 1, 3, 4]):
            op.unknown(f"perm {op['perm']}")
        self.constants[op.outputs[0]] = ("shuffled", value[1], value[2])

    def _flatten(self, op: _Op) -> None:
        if op["start_axis"] != 1:
            op.unknown(f"start_axis {op['start_axis']}")
        self._add_node(op, "flatten")

    def _squeeze(self, op: _Op) -> None:
        self._add_node(op, "flatten")

    def _dropout(self, op: _Op) -> None:
        if not op["is_test"]:
            op.unknown(tr("is_test: false; export the network in evaluation mode"))
        probability = self.constants[op.inputs[2]] if len(op.inputs) > 2 else op["dropout_prob"]
        if op["mode"] == "downgrade_in_infer":
            self._add_node(op, "scale", factor=1 - probability)
        else:
            self.names[op.outputs[0]] = self._value(op.inputs[0])

    def _split(self, op: _Op) -> None:
        if op.inputs and op.inputs[0] in self.lists:  # takes a list apart
            for made, part in zip(op.outputs, self.lists[op.inputs[0]]):
                self.names[made] = part
            return
        sections, axis = self.constants[op.inputs[1]], self.constants[op.inputs[2]]
        channels = self.shapes[self._value(op.inputs[0])][1]
        if axis != 1 or -1 in sections or sum(sections) != channels:
            op.unknown(f"axis {axis:g}, sections {sections}")
        source, start, parts = self._value(op.inputs[0]), 0, []
        for number, count in enumerate(sections):
            node = Node(
                "slice", [source], f"v{op.outputs[0]}_{number}", options={"start": start, "stop": start + count}
            )
            self.nodes.append(node)
            self.shapes[node.output] = (*self.shapes[source][:1], count, *self.shapes[source][2:])
            parts.append(node.output)
            start += count
        self.lists[op.outputs[0]] = parts

    def _concat(self, op: _Op) -> None:
        if self.constants[op.inputs[1]] != 1:
            op.unknown(tr("an axis other than the channels"))
        node = self._add_node(op, "concat", 0)
        node.inputs = [self._value(n) for n in self.lists[op.inputs[0]]]

    def _matmul(self, op: _Op) -> None:
        if op["transpose_x"] or op["transpose_y"]:
            op.unknown(tr("a transposed factor"))
        self._add_node(op, "linear").weights["weight"] = self._array(op, 1)

    def _softmax(self, op: _Op) -> None:
        if op["axis"] not in (1, -1):
            op.unknown(f"axis {op['axis']}")
        self._add_node(op, "softmax")


_READERS: dict[str, Callable[[_Reader, _Op], None]] = {
    "p": _Reader._p,
    "data": _Reader._data,
    "fetch": _Reader._fetch,
    "full": _Reader._full,
    "full_int_array": _Reader._full_int_array,
    "combine": _Reader._combine,
    "conv2d": _Reader._conv2d,
    "depthwise_conv2d": _Reader._conv2d,
    "batch_norm": _Reader._batch_norm,
    "pool2d": _Reader._pool2d,
    "add": _Reader._add,
    "multiply": _Reader._multiply,
    "reshape": _Reader._reshape,
    "transpose": _Reader._transpose,
    "flatten": _Reader._flatten,
    "squeeze": _Reader._squeeze,
    "dropout": _Reader._dropout,
    "split": _Reader._split,
    "concat": _Reader._concat,
    "matmul": _Reader._matmul,
    "softmax": _Reader._softmax,
    **dict.fromkeys((*ACTIVATIONS, "silu"), _Reader._activation),
}
