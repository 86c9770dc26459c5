"""What engines are fed with: decoded images become an engine's input here, a batch of memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Protocol, Union

import numpy as np

from pplc_cli.data.transforms.basic import CenterCrop, Normalize, Resize, ResizeByLong, ResizeByShort, Transform
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.predict.engines.base import Engine, PixelEngine

_UNUSED = np.random.default_rng(0)  # evaluation transforms draw nothing


class EngineInput(Protocol):
    """One of the ways."""

    def empty(self, images: int) -> np.ndarray:
        """Memory for so many."""
        ...

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        """Preprocess uint8 RGB (H, W, 3) into its place in a batch.

        Raises:
            ImageError: the transforms cannot use it.
        """
        ...

    def run(self, engine: Engine, batch: np.ndarray) -> np.ndarray:
        """The engine's answers, float32 (N, outputs)."""
        ...


def feed_for(engine: Engine, pipeline: Pipeline) -> EngineInput:
    """The cheapest way; what comes out is the same to the last bit."""
    if isinstance(engine, PixelEngine) and isinstance(pipeline.sample[-1], Normalize):
        return Uint8Input(pipeline)
    return FloatInput(pipeline)


class FloatInput:
    """float32 (3, H, W), normalised."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def empty(self, images: int) -> np.ndarray:
        return np.zeros((images, 3, *self._pipeline.size), np.float32)

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        self._pipeline(image, _UNUSED, out)

    def run(self, engine: Engine, batch: np.ndarray) -> np.ndarray:
        return engine.run(batch)


class Uint8Input:
    """uint8 (H, W, 3): the engine normalises where it reads them.

    A linear resize and the crop behind it are one pass, which computes nothing that is cut off.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        *others, last = pipeline.sample
        assert isinstance(last, Normalize)
        self._others, self._normalize, self._size = others, last, pipeline.size
        self._at_once = _resize_and_crop(others)

    def empty(self, images: int) -> np.ndarray:
        return np.zeros((images, *self._size, 3), np.uint8)

    def write(self, image: np.ndarray, out: np.ndarray) -> None:
        if self._at_once is not None:
            from pplc_cli.kernels.infer.resize import crop_of_resized

            resize, crop = self._at_once
            whole = resize.result(*image.shape[:2])
            crop_of_resized(image, whole, crop.first(*whole) if crop else (0, 0), out)
            return
        for operator in self._others:
            image = operator(image, _UNUSED)
        out[...] = image

    def run(self, engine: Engine, batch: np.ndarray) -> np.ndarray:
        assert isinstance(engine, PixelEngine)
        return engine.run_pixels(batch, self._normalize)


def _resize_and_crop(
    operators: Sequence[Transform],
) -> Optional[tuple[Union[Resize, ResizeByShort, ResizeByLong], Optional[CenterCrop]]]:
    """The two, where they are all that is done, or the first alone."""
    if not 1 <= len(operators) <= 2:
        return None
    resize, crop = operators[0], operators[1] if len(operators) > 1 else None
    if not isinstance(resize, (Resize, ResizeByShort, ResizeByLong)) or resize.interp != "LINEAR":
        return None
    return (resize, crop) if crop is None or isinstance(crop, CenterCrop) else None
