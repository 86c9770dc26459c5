"""What engines for ONNX read of an exported folder, and how images reach networks of a fixed batch."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from pplc_cli.base.errors import PplcError, PredictError, one_line

ONNX, INT8 = "inference.onnx", "inference_int8.onnx"


def onnx_source(folder: Path, *, precision: str = "float32", features: bool = False) -> Union[Path, bytes]:
    """An ONNX file of the folder, or the content of one made from what else is there.

    Args:
        folder: an exported one; without an ONNX file, Paddle's files are turned into ONNX in memory, simplified.
        precision: int8 reads ``inference_int8.onnx``, all others read the same.
        features: end the network at its embedding, see :func:`pplc_cli.predict.engines.open.open_engine`.

    Raises:
        PredictError: there is nothing to read, the network is unknown, or the package onnx is needed and missing.
    """
    file = folder / (INT8 if precision == "int8" else ONNX)
    if precision == "int8" and not file.is_file():
        raise PredictError(
            f"{folder}: {INT8} is missing; expected a folder exported with int8, see: pplc export --help"
        )
    if file.is_file():
        return _features_of(file) if features else file
    if not (folder / "inference.json").is_file():
        raise PredictError(f"{folder}: neither {ONNX} nor inference.json is there; expected what pplc export wrote")
    from pplc_cli.kernels.graph.onnx_writer import to_onnx
    from pplc_cli.kernels.graph.paddle_reader import read_paddle
    from pplc_cli.kernels.graph.simplify import simplify

    try:
        graph = simplify(read_paddle(folder))
        return to_onnx(graph.features() if features else graph)
    except (PplcError, ValueError) as error:
        raise PredictError(str(error)) from None


def _features_of(file: Path) -> bytes:
    """The network of a file up to the input of its last matrix product, and of a factor before that.

    That is where :meth:`pplc_cli.kernels.graph.graph.Graph.features` cuts a simplified network.
    """
    try:
        import onnx
    except ImportError:
        raise PredictError(
            "the features of an ONNX file need the package onnx; install it with: pip install 'pplc[onnx]'"
        ) from None
    try:
        model = onnx.load(str(file))
    except Exception as error:  # protobuf's own kinds
        raise PredictError(f"{file}: is no ONNX file: {one_line(error, stack=True)}") from None
    graph = model.graph
    product = next((node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul")), None)
    if product is None:
        raise PredictError(f"{file}: the network has no linear layer whose input could be its features")
    makers = {name: node for node in graph.node for name in node.output if node.op_type != "Constant"}
    end = product.input[0]
    while end in makers and makers[end].op_type == "Mul":
        computed = [name for name in makers[end].input if name in makers]
        if len(computed) != 1:
            break
        end = computed[0]
    needed, kept = {end}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    output = onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.append(output)
    content: bytes = model.SerializeToString()
    return content
