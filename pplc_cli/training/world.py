"""The processes, on one machine or several, that train one network: their devices and their communication.

Paddle's launcher starts them (see :mod:`pplc_cli.training.launch.launcher`) and numbers them in environment variables.
CPUs communicate over gloo, GPUs over NCCL.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pplc_cli.base.errors import TrainError, one_line
from pplc_cli.base.hardware import WORKER
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import TrainConfig


class ConnectionLost(TrainError):
    """The connection to another process is lost; that process reports the reason."""


class World:
    """The processes that train together; in this class, a single one.

    Attributes:
        rank: this process's number; number 0 writes the run's folder and reports to the user.
        size: number of processes.
    """

    rank, size = 0, 1

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of a float64 array over all processes."""
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Return process 0's value, which must fit into JSON."""
        return value

    def broadcast(self, tensors: Iterable[Any]) -> None:
        """Overwrite the tensors with those of process 0."""

    def all_reduce_mean(self, tensors: Sequence[Any]) -> None:
        """Replace the tensors by their mean over all processes."""

    def all_reduce_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace the parameters' gradients by their sum over all processes."""


class _Group(World):
    def __init__(self) -> None:
        import paddle
        import paddle.distributed as distributed

        self._paddle, self._distributed = paddle, distributed
        distributed.init_parallel_env()
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        tensor = self._paddle.to_tensor(values)
        self._add(tensor)
        return tensor.numpy()

    def broadcast_object(self, value: Any) -> Any:
        data = np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int64)
        size = int(self.all_reduce(np.array([float(len(data)) if self.rank == 0 else 0.0]))[0])
        tensor = self._paddle.to_tensor(data if self.rank == 0 else np.zeros(size, np.int64))
        self.broadcast([tensor])
        return json.loads(tensor.numpy().astype(np.uint8).tobytes())

    def broadcast(self, tensors: Iterable[Any]) -> None:
        with _connection_errors():
            for tensor in tensors:
                self._distributed.broadcast(tensor, 0)

    def all_reduce_mean(self, tensors: Sequence[Any]) -> None:
        for tensor, total in zip(tensors, self._sums(tensors, "float64")):
            tensor.copy_((total / self.size).astype(tensor.dtype), False)

    def all_reduce_gradients(self, parameters: Iterable[Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient, total in zip(gradients, self._sums(gradients, "float32")):
            gradient.copy_(total, False)

    def _sums(self, tensors: Sequence[Any], dtype: str) -> list[Any]:
        """Return the sum of each tensor over all processes."""
        # One message instead of a hundred: each costs about a millisecond, even on one machine.
        flat = self._paddle.concat([tensor.reshape([-1]).astype(dtype) for tensor in tensors])
        self._add(flat)
        parts = self._paddle.split(flat, [int(tensor.size) for tensor in tensors])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors)]

    def _add(self, tensor: Any) -> None:
        """Replace a tensor by its sum over all processes."""
        with _connection_errors():
            self._distributed.all_reduce(tensor)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # gloo and NCCL raise errors of their own
        raise ConnectionLost(
            tr("the connection to another training process is lost: {reason}", reason=one_line(error, stack=True))
        ) from None


def is_worker() -> bool:
    """Whether :mod:`pplc_cli.training.launch.launcher` started this process as one of several."""
    return WORKER in os.environ


def is_main_process() -> bool:
    """Whether this process is number 0; works before it connects to the others."""
    return not is_worker() or os.environ.get("PADDLE_TRAINER_ID") == "0"


def set_device(device: str) -> None:
    """Select the device of ``train.device``: ``cpu``, ``auto``, ``gpu:0``, or ``gpu:0,1`` with one GPU per worker.

    Raises:
        TrainError: the machine has no such device, or the installed Paddle does not support it.
    """
    import paddle

    count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device == "auto":
        device = "gpu:0" if count else "cpu"
    if device == "cpu":
        paddle.set_device("cpu")
        return
    if not count:
        if paddle.is_compiled_with_cuda():
            raise TrainError(
                tr(
                    "train.device: {device}: no GPU was found; set train.device: cpu, or install paddlepaddle-gpu",
                    device=device,
                )
            )
        raise TrainError(
            tr(
                "train.device: {device}: the installed PaddlePaddle is for CPUs only; set train.device: cpu, or "
                "install paddlepaddle-gpu",
                device=device,
            )
        )
    # Paddle's launcher shows each worker only its own GPU, as number 0.
    number = 0 if is_worker() else int(device.partition(":")[2].split(",")[0])
    if number >= count:
        raise TrainError(
            tr("train.device: {device}: there are {count} GPUs, numbered from 0", device=device, count=count)
        )
    paddle.set_device(f"gpu:{number}")


def init_world(config: TrainConfig) -> World:
    """Load Paddle, set its threads and device, and connect to the other processes, if there are any.

    Raises:
        TrainError: the device does not exist, or the processes cannot be reached.
    """
    load_paddle(config.threads)
    set_device(config.device)
    if not is_worker():
        return World()
    try:
        return _Group()
    except Exception as error:  # sockets and stores raise errors of many kinds
        raise TrainError(
            tr("the other training processes cannot be reached: {reason}", reason=one_line(error))
        ) from None
