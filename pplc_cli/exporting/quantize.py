"""Quantize a network to int8, with activation ranges calibrated on images."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PplcError
from pplc_cli.base.hardware import cpu_flags
from pplc_cli.base.language.messages import tr
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.onnx_writer import to_onnx
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify


def quantize(graph: Graph, batches: Iterable[np.ndarray], target: Path, *, batch: Optional[int] = None) -> None:
    """Write an int8 network as ONNX in QDQ form, which ONNX Runtime and OpenVINO run.

    Pointwise convolutions and the classifier are quantized: weights per channel, activations per tensor. A tensor's
    range is the mean of the batches' minima and maxima, which one outlier changes little; on photographs its error is
    half that of the overall minimum and maximum. Three kinds of layers stay float32: the first convolution,
    since its error affects all layers; depthwise convolutions, which are no faster in int8; and
    squeeze-and-excitation, whose errors scale whole channels and whose cost is negligible.

    Args:
        graph: the network, simplified.
        batches: calibration images, float32 (N, 3, H, W).
        target: the ``.onnx`` file to write.
        batch: fixed batch size; None: variable.

    Raises:
        PplcError: onnxruntime or onnx is not installed.
    """
    content = to_onnx(graph)
    try:
        with _silent():
            import onnx
            from onnxruntime import quantization
    except ImportError:
        raise PplcError(
            tr("int8 needs the package onnxruntime; install it with: pip install 'pplc[onnxruntime]'")
        ) from None

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> object:
            images = next(self.batches, None)
            return None if images is None else {"x": images}

    with _silent(), tempfile.TemporaryDirectory(prefix="pplc-") as scratch:
        source = Path(scratch) / "float32.onnx"
        source.write_bytes(content)
        quantization.quantize_static(
            source,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            nodes_to_exclude=[f"{name}.Conv" for name in (*_first_and_grouped(graph), *_excitations(graph))],
            per_channel=True,
            reduce_range=_saturates(),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        if batch:
            model = onnx.load(target)
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = batch
            onnx.save(model, target)


def _first_and_grouped(graph: Graph) -> Iterator[str]:
    """Outputs of the first convolutions and of grouped ones, such as depthwise convolutions."""
    for node in graph.nodes:
        if node.kind == "conv" and (node.inputs == [graph.input] or node.options["groups"] > 1):
            yield node.output


def _excitations(graph: Graph) -> Iterator[str]:
    """Outputs of the convolutions of squeeze-and-excitation: those between a global mean and a product of channels."""
    producers = {node.output: node for node in graph.nodes}
    for product in graph.nodes:
        found: list[str] = []
        node = producers.get(product.inputs[1]) if product.kind == "multiply" else None
        while node is not None and node.kind in ("conv", "activation"):
            found += [node.output] * (node.kind == "conv")
            node = producers.get(node.inputs[0])
        if node is not None and node.kind == "mean":
            yield from found


def _saturates() -> bool:
    """Whether sums of 8-bit products can overflow 16 bits: on x86 CPUs without VNNI. Weights then get 7 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not any("vnni" in flag for flag in cpu_flags())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Hide the messages of onnxruntime and onnx, except with ``--verbose``, which sets the level of the root logger."""
    if logging.getLogger().isEnabledFor(logging.INFO):
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def write_pplc_ranges(folder: Path, images: Iterable[np.ndarray]) -> None:
    """Write the activation ranges for pplc's own int8 kernels, if they support this CPU and the network.

    Args:
        folder: an exported folder; without Paddle's format nothing is written.
        images: calibration images, float32 (3, H, W).
    """
    from pplc_cli.kernels import unsupported

    if unsupported() is not None or not (folder / "inference.json").is_file():
        return
    from pplc_cli.kernels.infer.int8_ranges import measure_activation_ranges, write_activation_ranges
    from pplc_cli.kernels.infer.operands import Unsupported

    with contextlib.suppress(ModelError, Unsupported):
        graph = simplify(read_paddle(folder))
        if graph.size is not None:
            write_activation_ranges(folder, measure_activation_ranges(graph, images))
