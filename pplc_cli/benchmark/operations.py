"""List the operations that inference runs, each with its parameters, multiply-adds and bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Optional

from pplc_cli.models.static import converting

FLOAT = 4  # bytes
_LAYER = "pplc_layer"  # an attribute added to the operations of a program
_SILENT = {"full", "full_int_array", "reshape", "shadow_output", "data", "fetch", "feed", "assign", "slice"}
_FOLDED = {"batch_norm_", "dropout"}  # folded into the convolution before, or no operation at inference
_ACTIVATIONS = {"relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "swish", "silu", "gelu", "leaky_relu", "tanh"}
_CONVOLUTIONS = {"conv2d", "depthwise_conv2d"}


@dataclasses.dataclass
class Operation:
    """A convolution or matrix product with the operations fused into it, or any other operation.

    Attributes:
        name: the layer, as in ``blocks3.0.dw_conv``. An operation that is not a layer has the name of the layer whose
            forward pass contains it, or else a name made from the operation before it.
        kind: ``conv2d``, ``depthwise_conv2d``, ``matmul``, ``pool2d``, ``add``, ``multiply``, ``concat``, ...
        fused: operations computed within it: batch norm, activation.
        given: shapes of the inputs, without parameters.
        made: shape of the output.
        weight: shape of the weights, or None.
        stride: rows and columns.
        groups: number of groups of a convolution.
        params: trainable parameters, those of fused batch norm included.
        macs: multiply-adds of convolutions and matrix products.
        read: bytes of inputs and weights, float32.
        written: bytes of the output.
        milliseconds: measured by :mod:`pplc_cli.benchmark.profile`; None if it did not run on its own.
    """

    name: str
    kind: str
    given: list[tuple[int, ...]]
    made: tuple[int, ...]
    fused: list[str] = dataclasses.field(default_factory=list)
    weight: Optional[tuple[int, ...]] = None
    stride: tuple[int, int] = (1, 1)
    groups: int = 1
    params: int = 0
    macs: int = 0
    read: int = 0
    written: int = 0
    milliseconds: Optional[float] = None

    @property
    def intensity(self) -> float:
        """Multiply-adds per byte read or written."""
        return self.macs / max(1, self.read + self.written)

    @property
    def gflops(self) -> Optional[float]:
        """Achieved rate, two operations per multiply-add; None if nothing was measured or multiplied."""
        return 2 * self.macs / self.milliseconds / 1e6 if self.milliseconds and self.macs else None


def operations(network: Any, size: tuple[int, int] = (224, 224), batch: int = 1) -> tuple[Any, list[Operation]]:
    """Convert a network in evaluation mode to a static graph, and list its operations in the order they run.

    Args:
        network: a :class:`paddle.nn.Layer`, images (N, 3, H, W) to logits (N, classes).
        size: height and width.
        batch: images per batch.

    Returns:
        The static network for :func:`paddle.jit.save`, and the operations.
    """
    import paddle

    network.eval()
    spec = paddle.static.InputSpec([batch, 3, *size], "float32", name="x")
    static = paddle.jit.to_static(network, input_spec=[spec], full_graph=True)
    with converting(), _mark_layers(network):
        program = static.forward.concrete_program.main_program
    return static, _Reader(network, program).found


@contextlib.contextmanager
def _mark_layers(network: Any) -> Iterator[None]:
    """Give each operation of a program under construction the name of its layer as an attribute.

    Paddle's own names contain counters that depend on the networks built earlier in the process.
    """
    import paddle

    begun: list[int] = []

    def ops() -> Any:
        return paddle.static.default_main_program().global_block().ops

    def before(*_: Any) -> None:
        begun.append(len(ops()))

    def after(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            for op in ops()[begun.pop() :]:
                if not op.has_attr(_LAYER):
                    op.set_str_attr(_LAYER, name)

        return note

    hooks = []
    for name, layer in network.named_sublayers():
        hooks += [layer.register_forward_pre_hook(before), layer.register_forward_post_hook(after(name))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Reader:
    """Reads a program once; ``found`` holds the operations."""

    def __init__(self, network: Any, program: Any) -> None:
        self.found: list[Operation] = []
        self._names = {parameter.name: name for name, parameter in network.named_parameters()}
        self._producers: dict[Any, Operation] = {}  # by the value that each one computes
        self._readers: dict[Any, int] = {}
        self._parameters: dict[Any, str] = {}
        self._lists: dict[Any, list] = {}
        ops = list(program.global_block().ops)
        for op in ops:
            for value in _sources(op):
                self._readers[value.id] = self._readers.get(value.id, 0) + 1
        for op in ops:
            self._read(op)

    def _read(self, op: Any) -> None:
        kind = op.name().rpartition(".")[2]
        sources = _sources(op)
        if kind == "parameter":
            self._parameters[op.results()[0].id] = str(op.attrs().get("parameter_name", ""))
            return
        results = op.results()
        if op.name() == "builtin.combine":
            self._lists[results[0].id] = sources
            return
        if op.name() == "builtin.split":  # unpacks a list
            for result in results:
                self._producers[result.id] = self._producers[sources[0].id]
            return
        sources = [each for value in sources for each in self._lists.get(value.id, [value])]
        given = [value for value in sources if self._is_data(value)]
        if kind == "reshape" and sources and sources[0].id in self._parameters:  # a bias, reshaped for broadcasting
            self._parameters[results[0].id] = self._parameters[sources[0].id]
        if kind in _SILENT or not given or not results:
            self._forward(given, results)
            return
        parameters = [value for value in sources if value.id in self._parameters]
        before = self._producers.get(given[0].id)
        alone = before is not None and self._readers.get(given[0].id) == 1
        fused = kind in _FOLDED or (alone and (kind in _ACTIVATIONS or (kind == "add" and len(given) == 1)))
        if fused and before is not None and _fuses(before, kind):
            if kind in _ACTIVATIONS or kind == "batch_norm_":
                before.fused.append(kind.rstrip("_"))
            before.params += self._trainable(parameters)
            self._producers[results[0].id] = before
            return
        self._add(op, kind, given, parameters, results)

    def _add(self, op: Any, kind: str, given: list, parameters: list, results: list) -> None:
        shapes = [_shape(value) for value in given]
        made = shapes[0] if kind == "split" else _shape(results[0])
        operation = Operation(self._name(op, kind, parameters), kind, shapes, made)
        operation.params = self._trainable(parameters)
        attributes = op.attrs()
        if kind in _CONVOLUTIONS or kind == "matmul":
            weight = next(map(_shape, parameters), None)
            operation.weight = weight
            if kind in _CONVOLUTIONS and weight is not None:
                operation.groups = int(attributes.get("groups", 1))
                operation.stride = tuple(attributes.get("strides", (1, 1)))
                operation.macs = math.prod(made) * math.prod(weight[1:])
            elif weight is not None:
                operation.macs = math.prod(made) * weight[0]
        elif "strides" in attributes:
            operation.stride = tuple(attributes["strides"])
        operation.read = FLOAT * (
            sum(map(math.prod, shapes)) + (math.prod(operation.weight) if operation.weight else 0)
        )
        operation.written = FLOAT * math.prod(made)
        self.found.append(operation)
        for result in results:
            self._producers[result.id] = operation

    def _forward(self, given: list, results: list) -> None:
        if given and results and given[0].id in self._producers:
            self._producers[results[0].id] = self._producers[given[0].id]
            if self._readers.get(given[0].id, 0) > 1:  # another operation reads it too
                self._readers[results[0].id] = max(2, self._readers.get(results[0].id, 0))

    def _is_data(self, value: Any) -> bool:
        """Whether a value depends on the input, unlike constants and parameters."""
        return value.id in self._producers or value.get_defining_op().name().rpartition(".")[2] in ("data", "feed")

    def _trainable(self, parameters: list) -> int:
        names = [self._names.get(self._parameters[value.id], "") for value in parameters]
        statistics = ("._mean", "._variance")
        return sum(math.prod(_shape(v)) for v, name in zip(parameters, names) if not name.endswith(statistics))

    def _name(self, op: Any, kind: str, parameters: list) -> str:
        for value in parameters:
            name = self._names.get(self._parameters.get(value.id, ""), "")
            if name:
                return name.rpartition(".")[0]
        name = str(op.attrs().get(_LAYER, ""))
        if name or not self.found:
            return name or kind
        return f"{kind} after {self.found[-1].name}"


def _sources(op: Any) -> list[Any]:
    return [operand.source() for operand in op.operands() if operand.source().initialized()]


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in value.shape)


def _fuses(operation: Operation, kind: str) -> bool:
    """Whether oneDNN fuses an operation of ``kind`` into the one before."""
    if kind in ("batch_norm_", "add"):
        return operation.weight is not None
    return kind == "dropout" or operation.weight is not None or operation.kind in ("add", "multiply")
