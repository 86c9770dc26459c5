"""The engine pplc: its own kernels, for x86-64 CPUs with AVX2 or better; does not import Paddle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PredictError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.kernels import compiling_note, unsupported
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.predict.engines.base import finite

if TYPE_CHECKING:
    from pplc_cli.data.transforms.basic import Normalize, Size
    from pplc_cli.kernels.infer.network import Network
    from pplc_cli.kernels.infer.packing import Weights

    Run = Callable[[Network, np.ndarray], np.ndarray]


class PplcEngine:
    """A network in pplc's own kernels; see :class:`pplc_cli.predict.engines.base.Engine`."""

    name = "pplc"

    def __init__(
        self,
        graph: Graph,
        *,
        precision: str = "float32",
        threads: Optional[int] = None,
        activation_ranges: Optional[Mapping[str, tuple[float, float]]] = None,
        of: Optional[PplcEngine] = None,
    ) -> None:
        """
        Args:
            graph: a simplified graph.
            activation_ranges: see :class:`pplc_cli.kernels.infer.operands.PlanOptions`.
            of: an engine of the same graph to share weights with.

        Raises:
            PredictError: the kernels do not support a node of the graph, or this CPU does not support the precision.
        """
        from pplc_cli.kernels.infer.packing import Weights
        from pplc_cli.kernels.infer.resize import matches_opencv

        _check_cpu(precision)
        self.graph, self.precision = graph, precision
        self.threads = threads or physical_cores()
        self.outputs = graph.shapes[graph.output][1] if graph.output in graph.shapes else None
        self._weights: Weights = Weights() if of is None else of._weights
        self._activation_ranges = activation_ranges or {}
        self._networks: dict[tuple[Size, int], Network] = {}
        self._normalized: Optional[tuple[Normalize, np.ndarray]] = None
        self._lock = ForkSafeLock()
        matches_opencv()  # loads or compiles the resize now, like the network's kernels
        if graph.size is not None:
            self._network(graph.size, 0)

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.Engine.run`."""
        return self._run(images, self._size(images.shape), lambda network, part: network.run(part))

    def run_pixels(self, images: np.ndarray, normalize: Normalize) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.PixelEngine.run_pixels`."""
        n, height, width, channels = images.shape
        normalization = self._normalization(normalize)
        size = self._size((n, channels, height, width))
        return self._run(images, size, lambda network, part: network.run_pixels(part, normalization))

    def _run(self, images: np.ndarray, size: Size, run: Run) -> np.ndarray:
        try:
            return finite(self._run_parts(images, size, run), tr("the engine pplc"))
        except MemoryError:
            raise PredictError(
                tr("not enough memory for images of {width} x {height} pixels", width=size[1], height=size[0])
            ) from None

    def _run_parts(self, images: np.ndarray, size: Size, run: Run) -> np.ndarray:
        if self.threads == 1 or len(images) < self.threads:
            return run(self._network(size, 0), images)
        # Each thread runs whole images, so threads need no barrier.
        parts = np.array_split(images, self.threads)
        networks = [self._network(size, number + 1) for number in range(self.threads)]
        with ThreadPoolExecutor(self.threads, thread_name_prefix="pplc-engine") as pool:
            return np.concatenate(list(pool.map(run, networks, parts)))

    def single(self) -> PplcEngine:
        """See :meth:`pplc_cli.predict.engines.base.Engine.single`."""
        return PplcEngine(
            self.graph, precision=self.precision, threads=1, activation_ranges=self._activation_ranges, of=self
        )

    def _size(self, shape: tuple[int, ...]) -> Size:
        expected = self.graph.size
        channels = self.graph.shapes[self.graph.input][1]
        if len(shape) != 4 or shape[1] != channels or expected not in (None, shape[2:]):
            height, width = expected or ("H", "W")
            raise PredictError(
                tr(
                    "expected images (N, {channels}, {height}, {width}), got {shape}",
                    channels=channels,
                    height=height,
                    width=width,
                    shape=tuple(shape),
                )
            )
        return shape[2], shape[3]

    def _normalization(self, normalize: Normalize) -> np.ndarray:
        from pplc_cli.kernels.infer.network import normalization

        known = self._normalized
        if known is None or known[0] != normalize:
            known = self._normalized = normalize, normalization(*normalize.factors())
        return known[1]

    def _network(self, size: Size, number: int) -> Network:
        """The network planned for an image size; number 0 uses all threads, the others are single-threaded."""
        from pplc_cli.kernels.infer.network import Network
        from pplc_cli.kernels.infer.operands import PlanOptions, Unsupported

        with self._lock:
            if (size, number) not in self._networks:
                if len(self._networks) > 4 * (self.threads + 1):  # images of many sizes
                    self._networks.clear()
                options = PlanOptions(1 if number else self.threads, self.precision, self._activation_ranges)
                try:
                    self._networks[size, number] = Network(self.graph, size, options, weights=self._weights)
                except ModelError as error:
                    raise PredictError(str(error)) from None
                except Unsupported as reason:
                    raise PredictError(
                        tr("the engine pplc does not support {reason}; expected --engine paddle", reason=reason)
                    ) from None
            return self._networks[size, number]


def ready() -> bool:
    """Whether this CPU supports the kernels and they are compiled; compiling takes up to a minute."""
    if unsupported() is not None:
        return False
    from pplc_cli.kernels.infer import program, resize

    return program.is_ready() and resize.is_ready()


def compilation_note() -> Optional[str]:
    """A note for the user if the first use will compile the kernels, otherwise None."""
    if unsupported() is not None or ready():
        return None
    return compiling_note()


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> PplcEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    reason = unsupported()
    if reason is not None:
        raise PredictError(tr("the engine pplc cannot run here: {reason}; expected --engine paddle", reason=reason))
    _check_cpu(precision)
    activation_ranges = None
    if precision == "int8":
        from pplc_cli.kernels.infer.int8_ranges import read_activation_ranges

        activation_ranges = read_activation_ranges(folder)
    from pplc_cli.kernels.graph.paddle_reader import UnknownOperation, read_paddle
    from pplc_cli.kernels.graph.simplify import simplify

    try:
        graph = simplify(read_paddle(folder))
        graph = graph.features() if features else graph  # after simplify: a factor before the classifier is part of it
        return PplcEngine(graph, precision=precision, threads=threads, activation_ranges=activation_ranges)
    except UnknownOperation as error:
        raise PredictError(tr("{reason}; expected --engine paddle", reason=error)) from None
    except (ModelError, ValueError) as error:
        raise PredictError(str(error)) from None
    except MemoryError:
        raise PredictError(tr("{folder}: not enough memory for this network", folder=folder)) from None


def _check_cpu(precision: str) -> None:
    from pplc_cli.kernels.simd.llvm import BFLOAT16

    if precision == "bfloat16" and not BFLOAT16:
        raise PredictError(
            tr(
                "the engine pplc runs {precision} on CPUs with {instructions} only; expected --precision float32",
                precision=precision,
                instructions="AVX-512 BF16",
            )
        )
