"""Write a network in the formats of Paddle, ONNX and OpenVINO."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ExportError, ModelError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.onnx_writer import to_onnx
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.models.static import PADDLE_FILES, save_graph, save_layer

ENGINE_OF = {"paddle": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}  # the engine that checks each format
FORMATS = tuple(ENGINE_OF)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a network is written.

    Attributes:
        size: height and width of the images; None: any size.
        batch: fixed batch size; None: variable.
        simplify: fold batch norm and scales into the weights.
    """

    size: Optional[tuple[int, int]]
    batch: Optional[int] = None
    simplify: bool = False


def write_formats(
    network: Any, options: ExportOptions, formats: Sequence[str], folder: Path, *, needs_graph: bool = False
) -> Optional[Graph]:
    """Write a network in several formats, with a softmax at its end.

    Args:
        network: a :class:`paddle.nn.Layer` in evaluation mode.
        options: how to write it.
        formats: some of :data:`FORMATS`.
        folder: where to write.
        needs_graph: whether the caller cannot do without the graph.

    Returns:
        The network as a simplified graph; None if it has operations that only Paddle's format can express.

    Raises:
        ExportError: the same, if one of the arguments needs the graph.
        PplcError: a package is not installed.
    """
    paddle = load_paddle()
    save_graph(paddle, network, options.size, folder, batch=options.batch)
    try:
        plain = read_paddle(folder)
    except ModelError as error:
        if not (needs_graph or options.simplify or set(formats) - {"paddle"}):
            return None
        raise ExportError(
            tr(
                "this network can be exported only in Paddle's format and without --simplify: {reason}",
                reason=str(error).replace(f"{folder}{os.sep}", ""),  # the folder is only a temporary one
            )
        ) from error
    simple = simplify(plain)
    chosen = simple if options.simplify else plain
    if "paddle" not in formats:
        for name in PADDLE_FILES:
            (folder / name).unlink()
    elif options.simplify:
        from pplc_cli.exporting.graph_network import GraphNetwork

        save_layer(paddle, GraphNetwork(simple), options.size, folder, options.batch)
    if "onnx" in formats:
        (folder / "inference.onnx").write_bytes(to_onnx(chosen, batch=options.batch))
    if "openvino" in formats:
        _write_openvino(chosen, folder, options.batch)
    return simple


def _write_openvino(graph: Graph, folder: Path, batch: Optional[int]) -> None:
    try:
        import openvino
    except ImportError:
        raise PplcError(
            tr("writing OpenVINO's format needs openvino; install it with: pip install 'pplc[openvino]'")
        ) from None
    # openvino.convert_model would report its use to a server.
    model = openvino.Core().read_model(to_onnx(graph, batch=batch))
    openvino.save_model(model, folder / "inference.xml", compress_to_fp16=False)
