"""int8: from the activations of some images to a network of 8 bits; and what lower precisions cost in accuracy."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import platform
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.errors import ExportError, ModelError, PplcError
from pplc_cli.base.hardware import cpu_flags
from pplc_cli.data.lists import Sample, read_part, spread
from pplc_cli.data.loader import Loader
from pplc_cli.data.settings import DataConfig
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.graph.onnx_writer import to_onnx
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.predict.engines.base import Engine

INT8_FILE = "inference_int8.onnx"
CALIBRATION_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 of one engine and precision.

    Attributes:
        engine, precision: which.
        top1: share of right answers.
        before: that of float32 on the same images.
    """

    engine: str
    precision: str
    top1: float
    before: float

    @property
    def loss(self) -> float:
        """What the precision costs; below 0 where it gains."""
        return self.before - self.top1


def choose_images(data: DataConfig, labels: Sequence[str], calibrate: int) -> tuple[list[Sample], list[Sample], str]:
    """Images to calibrate with, others to measure on, and the list that these are.

    What is measured, the test list or else the validation list, must not be what the ranges were fitted to. So they are
    fitted to training images, of which there are the most, spread over their list.

    Raises:
        ExportError: the lists are not there.
    """
    measured = next(((part, s) for part in ("test", "val") if (s := _read(data, part, labels))), None)
    others = next((s for part in ("train", "val") if (s := _read(data, part, labels))), None)
    if measured is None or others is None or others == measured[1]:
        raise ExportError(
            f"{data.dir}: has no images to measure a lower precision on; expected a training list and a test or "
            "validation list: pplc split"
        )
    return spread(others, calibrate), measured[1], measured[0]


def _read(data: DataConfig, part: str, labels: Sequence[str]) -> list[Sample]:
    try:
        return read_part(data, part, labels) or []
    except PplcError:
        return []


def quantize(graph: Graph, batches: Iterable[np.ndarray], target: Path, *, batch: Optional[int] = None) -> None:
    """Write an int8 network as ONNX, in the form that ONNX Runtime and OpenVINO run (QDQ).

    Pointwise convolutions and the classifier are quantised: weights by channel, activations by value, each to the mean
    of the batches' least and largest numbers, which one outlier moves little: on photographs this halves the error of
    taking the extremes. float32 stay the first convolution, whose error everything inherits; depthwise ones, which are
    no faster in int8; and squeeze-and-excitation, whose error multiplies whole channels and whose work is nothing.

    Args:
        graph: simplified.
        batches: what to calibrate with, float32 (N, 3, H, W).
        target: the ``.onnx`` file.
        batch: how many images it takes, always; None: any number.

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
            "int8 needs the package onnxruntime; install it with: pip install 'pplc[onnxruntime]'"
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
    """Outputs of the convolutions that read the images, and of depthwise and other grouped ones."""
    for node in graph.nodes:
        if node.kind == "conv" and (node.inputs == [graph.input] or node.options["groups"] > 1):
            yield node.output


def _excitations(graph: Graph) -> Iterator[str]:
    """Outputs of the convolutions between a mean over the image and the product with its channels."""
    makers = {node.output: node for node in graph.nodes}
    for product in graph.nodes:
        found: list[str] = []
        node = makers.get(product.inputs[1]) if product.kind == "multiply" else None
        while node is not None and node.kind in ("conv", "activation"):
            found += [node.output] * (node.kind == "conv")
            node = makers.get(node.inputs[0])
        if node is not None and node.kind == "mean":
            yield from found


def _saturates() -> bool:
    """Whether products of 8 bits overflow 16 here: an x86 CPU without VNNI; weights get 7 bits then."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not any("vnni" in flag for flag in cpu_flags())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the package's remarks, which are for those who write programs with it."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def write_pplc_ranges(folder: Path, images: Iterable[np.ndarray]) -> None:
    """Write what pplc's own kernels need for int8, where they run here and know the network of Paddle's files.

    Args:
        folder: an exported one.
        images: what to calibrate with, float32 (3, H, W).
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


def measure(engines: Sequence[Engine], loader: Loader) -> list[float]:
    """Top-1 of several engines on the same images, each of which is decoded once."""
    right = [0] * len(engines)
    for batch in loader.epoch():
        for number, engine in enumerate(engines):
            right[number] += int((engine.run(batch.images).argmax(1) == batch.labels).sum())
    return [count / len(loader.samples) for count in right]
