"""Find or make the ONNX file of an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from pplc_cli.base.errors import PplcError, PredictError, one_line
from pplc_cli.base.language.messages import tr

ONNX, INT8 = "inference.onnx", "inference_int8.onnx"


def onnx_source(folder: Path, *, precision: str = "float32", features: bool = False) -> Union[Path, bytes]:
    """The ONNX file of a folder, or the content of one converted in memory.

    Args:
        folder: an exported model; without an ONNX file, Paddle's files are simplified and converted.
        precision: int8 reads ``inference_int8.onnx``; all others read ``inference.onnx``.
        features: end the network at its embedding, see :func:`pplc_cli.predict.engines.open.open_engine`.

    Raises:
        PredictError: a file is missing, the network cannot be converted, or the package onnx is missing.
    """
    file = folder / (INT8 if precision == "int8" else ONNX)
    if precision == "int8" and not file.is_file():
        raise PredictError(
            tr(
                "{folder}: {file} is missing; expected a folder exported with int8, see: pplc export --help",
                folder=folder,
                file=INT8,
            )
        )
    if file.is_file():
        return _features_of(file) if features else file
    if not (folder / "inference.json").is_file():
        raise PredictError(
            tr(
                "{folder}: {file} and inference.json are missing; expected a folder that pplc export wrote",
                folder=folder,
                file=ONNX,
            )
        )
    from pplc_cli.kernels.graph.onnx_writer import to_onnx
    from pplc_cli.kernels.graph.paddle_reader import read_paddle
    from pplc_cli.kernels.graph.simplify import simplify

    try:
        graph = simplify(read_paddle(folder))
        return to_onnx(graph.features() if features else graph)
    except (PplcError, ValueError) as error:
        raise PredictError(str(error)) from None


def _features_of(file: Path) -> bytes:
    """Cut a network at the input of its last matrix product, or before a factor that precedes it.

    :meth:`pplc_cli.kernels.graph.graph.Graph.features` cuts a simplified network at the same place.
    """
    try:
        import onnx
    except ImportError:
        raise PredictError(
            tr("the features of an ONNX file need the package onnx; install it with: pip install 'pplc[onnx]'")
        ) from None
    try:
        model = onnx.load(str(file))
    except Exception as error:  # protobuf raises its own classes
        raise PredictError(
            tr("{file}: is not an ONNX file: {reason}", file=file, reason=one_line(error, stack=True))
        ) from None
    graph = model.graph
    product = next((node for node in reversed(graph.node) if node.op_type in ("Gemm", "MatMul")), None)
    if product is None:
        raise PredictError(tr("{file}: the network has no linear layer whose input could be its features", file=file))
    makers = {name: node for node in graph.node for name in node.output if node.op_type != "Constant"}
    end = product.input[0] if product.input else ""
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
