"""Read PP-LCNet from ONNX files of Paddle2ONNX, and compare every layer with this package's network."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.models.weights.fit import shortened

_PASS_THROUGH = {"Identity", "Reshape", "Flatten", "Squeeze", "GlobalAveragePool", "Softmax"}  # keep a factor
_SHAPES = {"Shape", "Slice", "Concat", "Constant"}  # Paddle2ONNX builds flatten from these
_ACTIVATIONS = {"HardSwish": None, "Relu": "relu"}  # to model.options.activation


@dataclasses.dataclass
class _Layer:
    """A convolution or linear layer, with its bias, normalisation and activation.

    Attributes:
        node: name of the node or of its first output, for errors.
        weight: (outputs, inputs / groups, h, w), or (inputs, outputs).
        attributes: attributes of the convolution.
        bias: (outputs,).
        norm: weight, bias, mean and variance of batch norm, each (outputs,).
        epsilon: epsilon of batch norm.
        act: the activation's ONNX operator.
        act_attributes: attributes of the activation.
    """

    node: str
    weight: np.ndarray
    attributes: dict[str, Any]
    bias: Optional[np.ndarray] = None
    norm: Optional[list[np.ndarray]] = None
    epsilon: float = 0.0
    act: Optional[str] = None
    act_attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


class OnnxGraph:
    """The PP-LCNet of an ONNX file.

    Attributes:
        arrays: its weights by this package's names.
        activation: value for ``model.options.activation``.
        scale: factor of the features before the classifier.
    """

    def __init__(self, where: str, layers: dict[str, _Layer], scale: float) -> None:
        self.where, self.layers, self.scale = where, layers, scale
        acts = {layer.act for name, layer in layers.items() if name != "fc" and ".se." not in name}
        if len(acts) != 1 or not acts <= _ACTIVATIONS.keys():
            found = ", ".join(sorted(map(str, acts)))
            raise ModelError(
                tr("{where}: expected HardSwish or Relu after every layer, got {found}", where=where, found=found)
            )
        self.activation = _ACTIVATIONS[acts.pop() or ""]
        self.arrays: dict[str, np.ndarray] = {}
        for name, layer in layers.items():
            self.arrays[f"{name}.weight"] = layer.weight
            if layer.bias is not None:
                self.arrays[f"{name}.bias"] = layer.bias
            for leaf, array in zip(("weight", "bias", "_mean", "_variance"), layer.norm or ()):
                self.arrays[f"{name.removesuffix('conv')}bn.{leaf}"] = array

    def check(self, network: Any) -> None:
        """Compare attributes that shapes do not determine: strides, padding, dilation, groups, epsilon, the SE gate.

        Raises:
            ModelError: the file's network computes something else; the message names the layers.
        """
        with _damaged(self.where):
            faults = self._differences(dict(network.named_sublayers()))
        if faults:
            raise ModelError(
                tr(
                    "{where} differs from PP-LCNet as pplc builds it: {faults}",
                    where=self.where,
                    faults=shortened(faults),
                )
            )

    def _differences(self, ours: dict[str, Any]) -> list[str]:
        faults = []
        for name, layer in self.layers.items():
            conv = ours[name]
            if hasattr(conv, "_stride"):
                expected = {
                    "strides": _pair(conv._stride),
                    "pads": _pair(conv._padding) * 2,
                    "dilations": _pair(conv._dilation),
                    "group": conv._groups,
                }
                for key, value in expected.items():
                    found = layer.attributes.get(key, _DEFAULTS[key])
                    if found != value:
                        faults.append(
                            tr(
                                "{name} has {key} {found}, expected {expected}",
                                name=name,
                                key=key,
                                found=found,
                                expected=value,
                            )
                        )
            norm = ours.get(f"{name.removesuffix('conv')}bn")
            if norm is not None and abs(layer.epsilon - norm._epsilon) > 1e-3 * norm._epsilon:
                faults.append(
                    tr(
                        "{name} has epsilon {epsilon:g}, expected {expected:g}",
                        name=name,
                        epsilon=layer.epsilon,
                        expected=norm._epsilon,
                    )
                )
            if name.endswith(("se.conv1", "se.conv2")):
                expected_act = "Relu" if name.endswith("1") else "HardSigmoid"
                slope, offset = layer.act_attributes.get("alpha", 0.2), layer.act_attributes.get("beta", 0.5)
                if layer.act != expected_act:
                    faults.append(
                        tr(
                            "{name} is followed by {found}, expected {expected}",
                            name=name,
                            found=layer.act,
                            expected=expected_act,
                        )
                    )
                elif layer.act == "HardSigmoid" and (abs(slope - 1 / 6) > 1e-4 or abs(offset - 0.5) > 1e-4):
                    faults.append(tr("{name} has a gate of slope {slope:g}, expected 1/6", name=name, slope=slope))
        return faults


_DEFAULTS = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1}


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


@contextlib.contextmanager
def _damaged(where: str) -> Iterator[None]:
    """Convert errors: in a damaged file, attributes of a wrong type raise nearly anything."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            tr(
                "{where} is not a readable ONNX file ({kind}); is the download complete?",
                where=where,
                kind=type(error).__name__,
            )
        ) from None


def read_graph(path: Path) -> OnnxGraph:
    """Read an .onnx file of PP-LCNet whose batch norm is not folded into the convolutions.

    Raises:
        ModelError: the package onnx is missing, or the file is damaged or not such a network.
    """
    model = _load(path)
    with _damaged(str(path)):
        layers, scale = _walk(model.graph, str(path))
    if not any(layer.norm for layer in layers):
        raise ModelError(
            tr(
                "{path} has no batch norm: it was folded into the convolutions, and such a network "
                "cannot be trained further; export the file without this optimisation",
                path=path,
            )
        )
    return OnnxGraph(str(path), _named(layers, str(path)), scale)


def _load(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise ModelError(tr("reading .onnx files needs the package onnx: pip install 'pplc[onnx]'")) from None
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(tr("{path}: no such weights file", path=path))
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(
            tr(
                "{path} is not a readable ONNX file ({kind}); is the download complete?",
                path=path,
                kind=type(error).__name__,
            )
        ) from None
    if not model.graph.node:
        raise ModelError(tr("{path} is not a readable ONNX file: it contains no network", path=path))
    return model


def _array(tensor: Any, where: str) -> np.ndarray:
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(
            tr(
                "{where}: {name} is stored in another file; save the model as a single file",
                where=where,
                name=tensor.name,
            )
        )
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            tr("{where} is damaged: {name}: {error}", where=where, name=tensor.name, error=error)
        ) from None


def _walk(graph: Any, where: str) -> tuple[list[_Layer], float]:
    """Collect the layers in order of execution, and the factor before the last one."""
    from onnx import helper

    constants = {tensor.name: _array(tensor, where) for tensor in graph.initializer}
    made: dict[str, _Layer] = {}  # value -> its layer, while only parts of that layer follow
    scales: dict[str, float] = {}
    layers: list[_Layer] = []
    factor = 1.0
    for node in graph.node:
        kind, inputs = node.op_type, list(node.input)
        if not node.output or (not inputs and kind != "Constant"):
            raise ModelError(tr("{where} is damaged: {kind} without inputs or outputs", where=where, kind=kind))
        out, called = node.output[0], node.name or node.output[0]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        known = [constants[name] for name in inputs if name in constants]
        source = next((made[name] for name in inputs if name in made), None)
        if kind == "Constant" and "value" in attributes:
            constants[out] = _array(attributes["value"], where)
        elif kind == "Identity" and known:
            constants[out] = known[0]
        elif kind == "Conv" and known and inputs[0] not in constants:
            layers.append(_Layer(called, known[0], attributes, known[1] if len(known) > 1 else None))
            made[out] = layers[-1]
        elif kind in ("MatMul", "Gemm") and known and inputs[0] not in constants:
            plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1 and not attributes.get("transA")
            if not plain or known[0].ndim != 2:
                raise ModelError(
                    tr("{where}: {called} is a {kind}, but not a linear layer", where=where, called=called, kind=kind)
                )
            weight = known[0].T if attributes.get("transB") else known[0]
            layers.append(_Layer(called, weight, {}, known[1] if len(known) > 1 else None))
            made[out], factor = layers[-1], scales.get(inputs[0], 1.0)
        elif kind == "BatchNormalization" and source and len(known) == 4 and source.norm is None and not source.act:
            source.norm, source.epsilon = known, attributes.get("epsilon", 1e-5)
            made[out] = source
        elif kind == "Add" and source and known and source.bias is None and source.norm is None and not source.act:
            if known[0].size != source.weight.shape[1 if source.weight.ndim == 2 else 0]:
                raise ModelError(
                    tr(
                        "{where}: {called} adds {shape}, which is not a bias",
                        where=where,
                        called=called,
                        shape=list(known[0].shape),
                    )
                )
            source.bias, made[out] = known[0].reshape(-1), source
        elif kind in ("HardSwish", "Relu", "HardSigmoid") and source and not source.act:
            source.act, source.act_attributes = kind, attributes
        elif kind == "Mul" and known and known[0].size == 1:
            scales[out] = float(known[0].reshape(())) * scales.get(inputs[0], 1.0)
        elif kind in _PASS_THROUGH or kind in _SHAPES or (kind == "Mul" and not known):
            if inputs and inputs[0] in scales:
                scales[out] = scales[inputs[0]]
            if inputs and inputs[0] in made and kind == "Identity":
                made[out] = made[inputs[0]]
        else:
            raise ModelError(tr("{where}: PP-LCNet has no {kind} at {called}", where=where, kind=kind, called=called))
    return layers, factor


def _named(layers: list[_Layer], where: str) -> dict[str, _Layer]:
    """Name the layers: stem, blocks of two convolutions (with two of squeeze-and-excite between them where it is used),
    an optional wide convolution, classifier."""
    from pplc_cli.models.families.pplcnet import BLOCKS  # loads Paddle

    queue, named = collections.deque(layers), {}

    def take(name: str, sides: int, norm: bool) -> None:
        if not queue:
            raise ModelError(
                tr(
                    "{where}: PP-LCNet has more layers; {name} and all layers after it are missing",
                    where=where,
                    name=name,
                )
            )
        layer = queue.popleft()
        if layer.weight.ndim != sides or (layer.norm is not None) != norm:
            raise ModelError(
                tr(
                    "{where}: expected {name} of PP-LCNet, got {found} {shape}",
                    where=where,
                    name=name,
                    found=layer.node,
                    shape=list(layer.weight.shape),
                )
            )
        named[name] = layer

    take("conv1.conv", 4, True)
    for block in BLOCKS:
        take(f"{block}.dw_conv.conv", 4, True)
        if queue and queue[0].norm is None:
            take(f"{block}.se.conv1", 4, False)
            take(f"{block}.se.conv2", 4, False)
        take(f"{block}.pw_conv.conv", 4, True)
    if queue and queue[0].weight.ndim == 4:
        take("last_conv", 4, False)
    take("fc", 2, False)
    if queue:
        raise ModelError(tr("{where}: {node} comes after the classifier of PP-LCNet", where=where, node=queue[0].node))
    return named
