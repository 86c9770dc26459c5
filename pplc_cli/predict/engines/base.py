"""The interface of the inference engines: Paddle Inference, pplc's own kernels, ONNX Runtime, OpenVINO, PaddleX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pplc_cli.base.errors import PredictError

if TYPE_CHECKING:
    from pplc_cli.data.transforms.basic import Normalize
from collections.abc import Callable
from typing import Any


class Engine(Protocol):
    """An exported network, ready to run; safe to use from several threads at once.

    Attributes:
        name: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`, in which the products are computed; what goes in and comes out is float32.
        threads: of its kernels.
    """

    name: str
    precision: str
    threads: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, 3, H, W), normalised, to float32 (N, classes), probabilities, or (N, features)."""
        ...

    def single(self) -> Engine:
        """The same network for one thread of many, sharing what memory it can; of one thread where that helps.

        Paddle's engines cannot run side by side in a process, so theirs take turns with all their threads.
        """
        ...


@runtime_checkable
class PixelEngine(Engine, Protocol):
    """An engine that also takes pixels of images that have their size, and normalises them as it reads them."""

    def run_pixels(self, images: np.ndarray, normalize: Normalize) -> np.ndarray:
        """uint8 RGB (N, H, W, 3) to what :meth:`run` would give of the same images normalised, to the last bit."""
        ...


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An engine that also takes decoded images, because it brings its own preprocessing: PaddleX.

    ``isinstance(engine, ImageEngine)`` tells them apart.
    """

    def run_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 RGB images (H, W, 3) of any sizes, one batch, to probabilities, float32 (N, classes)."""
        ...


def run_in_batches(
    run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, shape: Sequence[Any], where: object
) -> np.ndarray:
    """Run images through a network that may be of one batch size only; the last batch is filled with zeros.

    Args:
        run: takes and gives contiguous arrays.
        images: float32 (N, 3, H, W).
        shape: of the network's input; what is no positive number there is free.
        where: what errors name.

    Raises:
        PredictError: the images have not the size that the network asks for.
    """
    batch, *sides = (side if isinstance(side, int) and side > 0 else 0 for side in shape)
    if images.ndim != 4 or any(side not in (0, given) for side, given in zip(sides, images.shape[1:])):
        wanted = ", ".join(str(side) if side else "any" for side in sides)
        raise PredictError(f"{where}: expected images of the shape (N, {wanted}), got {images.shape}")
    images = np.ascontiguousarray(images, np.float32)
    if batch in (0, len(images)):
        return run(images)
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padding = np.zeros((batch - len(part), *images.shape[1:]), np.float32)
        parts.append(run(np.concatenate((part, padding)))[: len(part)])
    return np.concatenate(parts)
