"""The files of an exported network: Paddle's, ONNX, OpenVINO's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ExportError, ModelError, PplcError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.onnx_writer import to_onnx
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.models.static import PADDLE_FILES, save_graph, save_layer

ENGINE_OF = {"paddle": "paddle", "onnx": "onnxruntime", "openvino": "openvino"}  # what checks each format
FORMATS = tuple(ENGINE_OF)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a network is written.

    Attributes:
        size: height and width of the images; None: any.
        batch: how many run together, always; None: any number.
        simplify: with batch norm and factors folded into the weights.
    """

    size: Optional[tuple[int, int]]
    batch: Optional[int] = None
    simplify: bool = False


def write_formats(
    network: Any, form: ExportOptions, formats: Sequence[str], folder: Path, *, graph: bool = False
) -> Any:
    """Write a network, in evaluation mode, in every named format.

    Args:
        network: of Paddle; softmax is added to it.
        form: how.
        formats: some of :data:`FORMATS`.
        folder: where to.
        graph: return the network as a :class:`Graph`, simplified, else None.

    Raises:
        ExportError: the network has operations that only Paddle's format has.
        PplcError: a package is not installed.
    """
    paddle = load_paddle()
    save_graph(paddle, network, form.size, folder, batch=form.batch)
    if not (graph or form.simplify or set(formats) - {"paddle"}):
        return None
    try:
        plain = read_paddle(folder)
    except ModelError as error:
        reason = str(error).partition(": ")[2]
        raise ExportError(f"only Paddle's format, not simplified, can hold this network: it {reason}") from None
    simple = simplify(plain)
    chosen = simple if form.simplify else plain
    if "paddle" not in formats:
        for name in PADDLE_FILES:
            (folder / name).unlink()
    elif form.simplify:
        from pplc_cli.exporting.graph_network import GraphNetwork

        save_layer(paddle, GraphNetwork(simple), form.size, folder, form.batch)
    if "onnx" in formats:
        (folder / "inference.onnx").write_bytes(to_onnx(chosen, batch=form.batch))
    if "openvino" in formats:
        _write_openvino(chosen, folder, form.batch)
    return simple if graph else None


def _write_openvino(graph: Graph, folder: Path, batch: Optional[int]) -> None:
    try:
        import openvino
    except ImportError:
        raise PplcError(
            "writing OpenVINO's format needs openvino; install it with: pip install 'pplc[openvino]'"
        ) from None
    # Not openvino.convert_model, which reports its use to a server.
    model = openvino.Core().read_model(to_onnx(graph, batch=batch))
    openvino.save_model(model, folder / "inference.xml", compress_to_fp16=False)
