"""Time every operation of a network as Paddle Inference runs it with oneDNN."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, one_line
from pplc_cli.base.language.messages import marked, tr
from pplc_cli.benchmark.disturbance import ATTEMPTS, Disturbance, busy_cpus, disturbance
from pplc_cli.benchmark.operations import Operation, operations
from pplc_cli.predict.engines.paddle import PaddleEngine

RUNS = 20  # timed runs of the whole network, and the same number of runs with oneDNN's log
_CONVOLUTION = re.compile(
    r"(?:g(\d+))?mb\d+_ic(\d+)oc(\d+)_ih(\d+)oh(\d+)kh(\d+)sh(\d+)\w*_iw(\d+)ow(\d+)kw(\d+)sw(\d+)", re.ASCII
)
_POOLING = re.compile(r"mb\d+ic(\d+)_ih(\d+)oh(\d+)kh\d+sh\d+\w*_iw(\d+)ow(\d+)", re.ASCII)
_PRODUCTS = {"inner_product": r"ic(\d+)\D*oc(\d+)", "matmul": r"(\d+):[\dx]*x(\d+)"}
_KINDS = {  # oneDNN's primitives, and the operations that they can implement
    "concat": ("concat",),
    "shuffle": ("transpose",),
    "binary_mul": ("multiply",),
    "binary_add": ("add",),
}


@dataclasses.dataclass
class Profile:
    """The measured times of a network and its operations.

    Attributes:
        name: of the network.
        size: height and width of the images.
        batch: images per batch.
        threads: threads of the engine.
        operations: in the order they run, with their times.
        other: milliseconds of oneDNN's other primitives by kind, mainly changes of memory layout.
        milliseconds: the whole network, median.
        disturbance: what else the machine did meanwhile.
    """

    name: str
    size: tuple[int, int]
    batch: int
    threads: int
    operations: list[Operation]
    other: dict[str, float]
    milliseconds: float
    disturbance: Disturbance = Disturbance()

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(operation.params for operation in self.operations)

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and matrix products, for the whole batch."""
        return sum(operation.macs for operation in self.operations)

    @property
    def overhead(self) -> float:
        """Milliseconds outside oneDNN: the executor, and Paddle's own operators."""
        return max(0.0, self.milliseconds - self._inside)

    @property
    def accounted(self) -> float:
        """Milliseconds of operations, other primitives and overhead together, of which shares are given."""
        return self._inside + self.overhead

    @property
    def _inside(self) -> float:
        return sum(operation.milliseconds or 0 for operation in self.operations) + sum(self.other.values())

    def rest(self) -> list[tuple[str, float]]:
        """Milliseconds outside the operations, by kind, in English."""
        other = sorted(self.other.items(), key=lambda item: -item[1])
        kinds = [(marked("changes of memory layout") if kind == "reorder" else kind, spent) for kind, spent in other]
        return [*kinds, (marked("outside oneDNN"), self.overhead)]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON."""
        rows = []
        for operation in self.operations:
            row = dataclasses.asdict(operation)
            row.update(intensity=round(operation.intensity, 3), gflops=operation.gflops)
            row["share"] = (operation.milliseconds or 0) / self.accounted
            rows.append(row)
        whole = {key: getattr(self, key) for key in ("name", "size", "batch", "threads", "params", "macs")}
        times = {"milliseconds": self.milliseconds, "other": self.other, "overhead": self.overhead}
        return {**whole, **times, "disturbance": dataclasses.asdict(self.disturbance), "operations": rows}


def profile(
    network: Any, name: str, *, size: tuple[int, int] = (224, 224), batch: int = 1, threads: Optional[int] = None
) -> Profile:
    """Run a network in evaluation mode and measure each of its operations on this CPU.

    A measurement that other work on the machine disturbed is repeated, and the fastest one is kept.

    Args:
        network: a :class:`paddle.nn.Layer`, images (N, 3, H, W) to (N, classes).
        name: the name to report.
        size: height and width.
        batch: images per batch.
        threads: None: :func:`pplc_cli.base.hardware.physical_cores`.

    Raises:
        ModelError: the network cannot be converted to a static graph, or does not accept such images.
    """
    import paddle

    with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
        try:
            static, found = operations(network, size, batch)
            paddle.jit.save(static, str(Path(folder) / "inference"))
        except Exception as error:  # the user's network may raise anything
            raise ModelError(
                tr(
                    "{name} cannot be converted to a static graph: {reason}",
                    name=name,
                    reason=one_line(error, stack=True),
                )
            ) from error
        engine = PaddleEngine(Path(folder), threads=threads)
        images = np.random.default_rng(0).standard_normal((batch, 3, *size)).astype(np.float32)
        measured: list[_Measured] = []
        while not measured or (measured[-1].disturbance.disturbed and len(measured) < ATTEMPTS):
            measured.append(_measure(engine, images))
    best = min(measured, key=lambda each: each.milliseconds)
    other = _assign(found, best.primitives)
    return Profile(name, size, batch, engine.threads, found, other, best.milliseconds, best.disturbance)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Median milliseconds of a run, the primitives of one run, and what else the machine did."""

    milliseconds: float
    primitives: list[_Primitive]
    disturbance: Disturbance


def _measure(engine: PaddleEngine, images: np.ndarray) -> _Measured:
    """Time whole runs, and in turn with them runs with oneDNN's log, so that both meet the same machine."""
    for _ in range(3):  # the first runs create the kernels
        engine.run_batch(images)
    before = busy_cpus()
    times = []
    with tempfile.TemporaryFile() as log:
        with _log_to(log.fileno()) as set_logging:
            for _ in range(RUNS):
                began = time.perf_counter()
                engine.run_batch(images)
                times.append((time.perf_counter() - began) * 1e3)
                set_logging(1)
                engine.run_batch(images)
                set_logging(0)
        log.seek(0)
        primitives = _runs(log.read().decode("utf-8", "replace"), RUNS)
    return _Measured(statistics.median(times), primitives, disturbance([before, busy_cpus()], [times]))


@contextlib.contextmanager
def _log_to(target: int) -> Iterator[Callable[[int], object]]:
    """Redirect oneDNN's log, which has one timed line per primitive, from stdout to the file descriptor ``target``.

    Yields:
        The function that turns the log on (1) and off (0).
    """
    import paddle

    names = ("libdnnl.so.3", "mkldnn.dll", "libdnnl.3.dylib")
    folder = Path(paddle.__file__).parent / "libs"
    library = next((folder / name for name in names if (folder / name).exists()), None)
    if library is None:
        yield lambda level: None
        return
    onednn = ctypes.CDLL(str(library))
    kept = os.dup(1)
    try:
        os.dup2(target, 1)
        yield onednn.dnnl_set_verbose
    finally:
        onednn.dnnl_set_verbose(0)
        os.dup2(kept, 1)
        os.close(kept)


@dataclasses.dataclass(frozen=True)
class _Primitive:
    """A line of oneDNN's log: its ``kind`` (for binary primitives, the algorithm) and its dimensions as ``problem``."""

    kind: str
    problem: str
    milliseconds: float


def _runs(log: str, count: int) -> list[_Primitive]:
    """Parse the log of ``count`` runs: the primitives of one run, each with its median time."""
    found = []
    for line in log.splitlines():
        fields = line.split(",")
        if len(fields) > 10 and fields[0] == "onednn_verbose" and fields[3] == "exec":
            kind = fields[5]
            if kind == "binary":
                kind = re.sub(r".*alg:(\w+).*", r"\1", line)
            found.append(_Primitive(kind, fields[-2], float(fields[-1])))
    size = len(found) // count
    if not size or len(found) != size * count:
        return []
    return [
        dataclasses.replace(found[i], milliseconds=statistics.median(p.milliseconds for p in found[i::size]))
        for i in range(size)
    ]


def _assign(found: list[Operation], primitives: list[_Primitive]) -> dict[str, float]:
    """Give each operation the time of its primitive; return the times of the other primitives by kind."""
    pending: dict[Any, list[Operation]] = {}
    for operation in found:
        pending.setdefault(_key(operation), []).append(operation)
    other: dict[str, float] = {}
    for primitive in primitives:
        mine = next((pending[key].pop(0) for key in _keys(primitive) if pending.get(key)), None)
        if mine is not None:
            mine.milliseconds = primitive.milliseconds
        else:
            other[primitive.kind] = other.get(primitive.kind, 0) + primitive.milliseconds
    return other


def _key(operation: Operation) -> Any:
    given = operation.given[0]
    if operation.weight is not None and operation.kind != "matmul":
        made, weight = operation.made, operation.weight
        return "convolution", operation.groups, given[1], made[1], given[2:], made[2:], weight[2:]
    if operation.kind == "pool2d":
        return "pooling", given[1], given[2:], operation.made[2:]
    if operation.kind == "matmul":
        return "matmul", given[-1], operation.made[-1]
    return operation.kind, math.prod(operation.made)


def _keys(primitive: _Primitive) -> Iterator[Any]:
    """All values that :func:`_key` can give for the operation of a primitive."""
    problem = primitive.problem
    if primitive.kind == "convolution" and (match := _CONVOLUTION.search(problem)):
        groups, inputs, outputs, ih, oh, kh, _, iw, ow, kw, _ = (int(n or 1) for n in match.groups())
        yield "convolution", groups, inputs, outputs, (ih, iw), (oh, ow), (kh, kw)
    elif primitive.kind == "pooling" and (match := _POOLING.search(problem)):
        channels, ih, oh, iw, ow = map(int, match.groups())
        yield "pooling", channels, (ih, iw), (oh, ow)
    elif primitive.kind in _PRODUCTS and (match := re.search(_PRODUCTS[primitive.kind], problem)):
        yield "matmul", int(match[1]), int(match[2])
    elif primitive.kind in _KINDS:
        sizes = [math.prod(map(int, part.split("x"))) for part in re.findall(r"\d+(?:x\d+)+", problem)]
        for kind in _KINDS[primitive.kind]:
            yield kind, max(sizes, default=0)
            yield kind, sum(sizes)  # a concatenation writes as much as it reads
    elif primitive.kind == "eltwise":
        for kind in ("hardswish", "relu", "relu6", "gelu", "sigmoid", "hardsigmoid", "swish", "silu"):
            yield kind, math.prod(map(int, re.findall(r"\d+", problem)))
