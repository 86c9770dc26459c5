"""PP-LCNet as an ONNX file of Paddle2ONNX."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import pytest


def onnx_model(
    network, scale: Optional[float] = 0.8, strides: Optional[dict[str, list[int]]] = None, fold: bool = False
):
    """Build our PP-LCNet as Paddle2ONNX writes it.

    Args:
        network: in evaluation mode.
        scale: the factor in place of the dropout.
        strides: other strides, by layer.
        fold: leave out batch norm.
    """
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'pplc[onnx]'")
    helper = onnx.helper
    nodes: list[Any] = []
    tensors: list[Any] = []

    def constant(array) -> str:
        tensors.append(onnx.numpy_helper.from_array(np.asarray(array), f"tensor_{len(tensors)}"))
        return tensors[-1].name

    def add(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"value_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def conv(value: str, layer, name: str) -> str:
        pair = {"strides": layer._stride, "pads": layer._padding, "dilations": layer._dilation}
        values = {key: [v, v] if isinstance(v, int) else list(v) for key, v in pair.items()}
        values["pads"] *= 2
        values["strides"] = (strides or {}).get(name, values["strides"])
        value = add("Conv", value, constant(layer.weight.numpy()), group=layer._groups, **values)
        return value if layer.bias is None else add("Add", value, constant(layer.bias.numpy().reshape(1, -1, 1, 1)))

    def conv_bn_act(value: str, block, name: str) -> str:
        value, bn = conv(value, block.conv, f"{name}.conv"), block.bn
        if not fold:
            parts = (constant(array.numpy()) for array in (bn.weight, bn.bias, bn._mean, bn._variance))
            value = add("BatchNormalization", value, *parts, epsilon=bn._epsilon)
        return add(act, value)

    act = {"Hardswish": "HardSwish", "ReLU": "Relu"}[type(network.activate).__name__]
    value = conv_bn_act("x", network.conv1, "conv1")
    for stage in ("blocks2", "blocks3", "blocks4", "blocks5", "blocks6"):
        for index, block in enumerate(getattr(network, stage)):
            value = conv_bn_act(value, block.dw_conv, f"{stage}.{index}.dw_conv")
            if block.se is not None:
                small = add("Relu", conv(add("GlobalAveragePool", value), block.se.conv1, "se"))
                gate = add("HardSigmoid", conv(small, block.se.conv2, "se"), alpha=1 / 6, beta=0.5)
                value = add("Mul", value, gate)
            value = conv_bn_act(value, block.pw_conv, f"{stage}.{index}.pw_conv")
    value = add("GlobalAveragePool", value)
    if network.last_conv is not None:
        value = add(act, conv(value, network.last_conv, "last_conv"))
    if scale is not None:
        value = add("Mul", value, constant(np.array([scale], np.float32)))
    value = add("MatMul", add("Flatten", value), constant(network.fc.weight.numpy()))
    value = add("Softmax", add("Identity", add("Add", value, constant(network.fc.bias.numpy()))))
    kinds = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", value))
    graph = helper.make_graph(nodes, "network", [next(kinds)], [next(kinds)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
