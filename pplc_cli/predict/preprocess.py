"""Preprocess decoded images into an engine's input batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Protocol, TypeVar, Union

import numpy as np

from pplc_cli.data.transforms.basic import CenterCrop, Normalize, Resize, ResizeByLong, ResizeByShort, Transform
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.predict.engines.base import Engine, ImageEngine, PixelEngine

Batch = TypeVar("Batch")
_UNUSED = np.random.default_rng(0)  # evaluation transforms are not random


class EngineInput(Protocol[Batch]):
    """The form in which an engine takes images."""

    def empty(self, images: int) -> Batch:
        """Allocate a batch."""
        ...

    def write(self, image: np.ndarray, batch: Batch, index: int) -> None:
        """Preprocess an image, uint8 RGB (H, W, 3), into its place in a batch.

        Raises:
            ImageError: the transforms cannot process it.
        """
        ...

    def run(self, engine: Engine, batch: Batch, images: int) -> np.ndarray:
        """Run an engine on a batch and return the outputs of its first images, float32 (images, outputs)."""
        ...


def input_for(engine: Engine, pipeline: Pipeline) -> EngineInput[Any]:
    """Choose the cheapest form that an engine takes; FloatInput and Uint8Input give bit-equal outputs."""
    if isinstance(engine, ImageEngine):
        return ImageInput()
    if isinstance(engine, PixelEngine) and isinstance(pipeline.sample[-1], Normalize):
        return Uint8Input(pipeline)
    return FloatInput(pipeline)


class FloatInput:
    """Normalised images, float32 (N, 3, H, W)."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def empty(self, images: int) -> np.ndarray:
        return np.zeros((images, 3, *self._pipeline.size), np.float32)

    def write(self, image: np.ndarray, batch: np.ndarray, index: int) -> None:
        self._pipeline(image, _UNUSED, batch[index])

    def run(self, engine: Engine, batch: np.ndarray, images: int) -> np.ndarray:
        return engine.run(batch)[:images]


class Uint8Input:
    """Resized and cropped images, uint8 (N, H, W, 3), which the engine normalises as it reads them.

    A linear resize followed by a crop is one pass that computes only the pixels inside the crop.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        *others, last = pipeline.sample
        assert isinstance(last, Normalize)
        self._others, self._normalize, self._size = others, last, pipeline.size
        self._fused = _resize_and_crop(others)

    def empty(self, images: int) -> np.ndarray:
        return np.zeros((images, *self._size, 3), np.uint8)

    def write(self, image: np.ndarray, batch: np.ndarray, index: int) -> None:
        if self._fused is not None:
            from pplc_cli.kernels.infer.resize import crop_of_resized

            resize, crop = self._fused
            whole = resize.result(*image.shape[:2])
            crop_of_resized(image, whole, crop.first(*whole) if crop else (0, 0), batch[index])
            return
        for operator in self._others:
            image = operator(image, _UNUSED)
        batch[index] = image

    def run(self, engine: Engine, batch: np.ndarray, images: int) -> np.ndarray:
        assert isinstance(engine, PixelEngine)
        return engine.run_pixels(batch, self._normalize)[:images]


class ImageInput:
    """Decoded images of any size, for an engine with its own preprocessing."""

    def empty(self, images: int) -> list[Optional[np.ndarray]]:
        return [None] * images

    def write(self, image: np.ndarray, batch: list[Optional[np.ndarray]], index: int) -> None:
        batch[index] = image

    def run(self, engine: Engine, batch: list[Optional[np.ndarray]], images: int) -> np.ndarray:
        assert isinstance(engine, ImageEngine)
        return engine.run_images([image for image in batch[:images] if image is not None])


def _resize_and_crop(
    operators: Sequence[Transform],
) -> Optional[tuple[Union[Resize, ResizeByShort, ResizeByLong], Optional[CenterCrop]]]:
    """The linear resize and the crop, if any, of a pipeline that does nothing else; None for other pipelines."""
    if not 1 <= len(operators) <= 2:
        return None
    resize, crop = operators[0], operators[1] if len(operators) > 1 else None
    if not isinstance(resize, (Resize, ResizeByShort, ResizeByLong)) or resize.interp != "LINEAR":
        return None
    return (resize, crop) if crop is None or isinstance(crop, CenterCrop) else None
