"""Several processes, on one machine or more, training one network: what they tell each other.

Started by Paddle's launcher (see :mod:`pplc_cli.training.launch.launcher`), which says in the environment who is who.
Between CPUs the messages go over gloo, between GPUs over NCCL.
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
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import TrainConfig


class LostContact(TrainError):
    """Another process is gone. It knows why; this one does not."""


class World:
    """The processes that train together; this one is alone.

    Attributes:
        rank: this process's number; number 0 writes the run's folder and speaks to the user.
        size: how many there are.
    """

    rank, size = 0, 1

    def all_reduce(self, values: np.ndarray) -> np.ndarray:
        """Add a float64 array up over all processes."""
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Process 0's value, anything JSON can hold, in every process."""
        return value

    def broadcast(self, tensors: Iterable[Any]) -> None:
        """Give every process the numbers of process 0's tensors."""

    def all_reduce_mean(self, tensors: Sequence[Any]) -> None:
        """Give every process the mean of all processes' tensors."""

    def all_reduce_gradients(self, parameters: Iterable[Any]) -> None:
        """Add the parameters' gradients up over all processes."""


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
        with _in_contact():
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
        """Each tensor added up over all processes."""
        # One message instead of a hundred: between processes of one machine each costs about a millisecond.
        flat = self._paddle.concat([tensor.reshape([-1]).astype(dtype) for tensor in tensors])
        self._add(flat)
        parts = self._paddle.split(flat, [int(tensor.size) for tensor in tensors])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors)]

    def _add(self, tensor: Any) -> None:
        """Add a tensor up over all processes, in place."""
        with _in_contact():
            self._distributed.all_reduce(tensor)


@contextlib.contextmanager
def _in_contact() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # gloo and NCCL have their own kinds
        raise LostContact(
            f"another training process cannot be reached any more: {one_line(error, stack=True)}"
        ) from None


def is_worker() -> bool:
    """Whether :mod:`pplc_cli.training.launch.launcher` started this process as one of several."""
    return WORKER in os.environ


def is_main_process() -> bool:
    """Whether this process is number 0, which it knows before it has joined the others."""
    return not is_worker() or os.environ.get("PADDLE_TRAINER_ID") == "0"


def set_device(device: str) -> None:
    """Compute where ``train.device`` says: ``cpu``, ``auto``, ``gpu:0``, or ``gpu:0,1``, of which each worker has one.

    Raises:
        TrainError: this Paddle or this machine has no such device.
    """
    import paddle

    count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device == "auto":
        device = "gpu:0" if count else "cpu"
    if device == "cpu":
        paddle.set_device("cpu")
        return
    if not count:
        what = "no GPU was found" if paddle.is_compiled_with_cuda() else "this PaddlePaddle is the CPU one"
        raise TrainError(f"train.device: {device}: {what}; set train.device: cpu, or install paddlepaddle-gpu")
    # Paddle's launcher shows each worker its own GPU alone, as number 0.
    number = 0 if is_worker() else int(device.partition(":")[2].split(",")[0])
    if number >= count:
        raise TrainError(f"train.device: {device}: there are {count} GPUs, numbered from 0")
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
    except Exception as error:  # whatever sockets and stores may raise
        raise TrainError(f"the other processes cannot be reached: {one_line(error)}") from None
