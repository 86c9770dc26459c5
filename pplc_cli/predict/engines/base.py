"""The interface of the inference engines: Paddle Inference, pplc's own kernels, ONNX Runtime, OpenVINO, PaddleX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol, runtime_checkable

import numpy as np

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.language.messages import tr

if TYPE_CHECKING:
    from pplc_cli.data.transforms.basic import Normalize


class Engine(Protocol):
    """An exported network, ready to run; thread-safe.

    Attributes:
        name: one of :data:`ENGINES`.
        precision: one of :data:`PRECISIONS`, that of the multiplications; inputs and outputs are float32.
        threads: threads that one run uses.
        outputs: numbers per image; None: only a run tells.
    """

    name: str
    precision: str
    threads: int
    outputs: Optional[int]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run normalised images, float32 (N, 3, H, W); returns probabilities or features, float32 (N, outputs).

        Raises:
            PredictError: the images have another size, the engine fails, or its results are not finite numbers.
        """
        ...

    def single(self) -> Engine:
        """The same network for one of several worker threads; shares memory, and runs single-threaded if that helps.

        Paddle's engines cannot run in parallel within a process, so they return themselves and take turns.
        """
        ...


@runtime_checkable
class PixelEngine(Engine, Protocol):
    """An engine that also takes uint8 images of the network's size, and normalises them as it reads them."""

    def run_pixels(self, images: np.ndarray, normalize: Normalize) -> np.ndarray:
        """Run images, uint8 RGB (N, H, W, 3); bit-equal to :meth:`run` on the same images normalised."""
        ...


@runtime_checkable
class ImageEngine(Engine, Protocol):
    """An engine that also takes decoded images and preprocesses them itself: PaddleX."""

    def run_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Run one batch of uint8 RGB images (H, W, 3) of any sizes; returns probabilities, float32 (N, classes)."""
        ...


def run_in_batches(
    run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, shape: Sequence[Any], where: object
) -> np.ndarray:
    """Run images through a network that may have a fixed batch size; the last batch is padded with zeros.

    Args:
        run: runs one contiguous batch.
        images: float32 (N, 3, H, W).
        shape: shape of the network's input; an entry that is not a positive number is variable.
        where: named in errors.

    Raises:
        PredictError: the images do not have the network's input size, or the run fails.
    """

    def checked(batch: np.ndarray) -> np.ndarray:
        try:
            results = run(batch)
        except Exception as error:  # each engine raises its own classes
            raise PredictError(
                tr("{where}: the engine failed to run: {reason}", where=where, reason=one_line(error, stack=True))
            ) from None
        if results.ndim != 2 or len(results) != len(batch):
            raise PredictError(
                tr(
                    "{where}: expected outputs (N, classes), got {shape} for {count} images",
                    where=where,
                    shape=results.shape,
                    count=len(batch),
                )
            )
        return finite(results, where)

    batch, *sides = (side if isinstance(side, int) and side > 0 else 0 for side in shape)
    if images.ndim != 4 or any(side not in (0, given) for side, given in zip(sides, images.shape[1:])):
        wanted = ", ".join(str(side) if side else tr("any") for side in sides)
        raise PredictError(
            tr(
                "{where}: expected images of shape (N, {wanted}), got {shape}",
                where=where,
                wanted=wanted,
                shape=images.shape,
            )
        )
    images = np.ascontiguousarray(images, np.float32)
    if batch in (0, len(images)):
        return checked(images)
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        padding = np.zeros((batch - len(part), *images.shape[1:]), np.float32)
        parts.append(checked(np.concatenate((part, padding)))[: len(part)])
    return np.concatenate(parts)


def finite(results: np.ndarray, where: object) -> np.ndarray:
    """The results of an engine.

    Raises:
        PredictError: they contain NaN or infinity, which is no answer.
    """
    if not np.isfinite(results).all():
        raise PredictError(
            tr(
                "{where}: the network computed a result that is no number (NaN or infinite); its weights "
                "may be damaged, or too large for this precision",
                where=where,
            )
        )
    return results
