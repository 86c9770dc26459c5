"""Transforms of one image: resize, crop, pad, flip, normalise.

Names, arguments and behaviour are those of PaddleX 2.1. An image is RGB, shape (H, W, 3), and uint8 until Normalize
makes it float32. Every transform is a dataclass, and the configuration is checked against its fields.
"""

from __future__ import annotations

import dataclasses
from typing import Optional, Union

import cv2
import numpy as np

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import option
from pplc_cli.data.transforms.limits import MAX_LEVEL, MAX_PIXELS, MAX_RATIO, MAX_SIDE

cv2.setNumThreads(1)  # the loader runs one image per thread; nested threads would only compete

INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}
_INTERP = (*INTERPOLATIONS, "RANDOM")
_INTERP_HELP = "Interpolation; `RANDOM` draws one of the others for each image."
Rng = np.random.Generator
Size = tuple[int, int]  # height, width


class Transform:
    """A transform of one image."""

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        """Return a new image; the given one is never modified."""
        raise NotImplementedError

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        """Height and width of the output for an input of this size; None if they vary or are unknown."""
        return size

    def shrink_limit(self, size: Size) -> float:
        """The largest factor by which an image of this size can be shrunk in advance and still need no enlarging."""
        return 1.0


def contiguous(image: np.ndarray) -> np.ndarray:
    """Return a C-contiguous image. For a mirrored view, OpenCV is ten times as fast as NumPy."""
    return cv2.flip(image[:, ::-1], 1) if image.strides[1] < 0 else np.ascontiguousarray(image)


@dataclasses.dataclass(frozen=True)
class Resize(Transform):
    """Resize to ``target_size``, one side or [height, width]; with ``keep_ratio``, fit the image inside it."""

    target_size: Union[int, list[int]] = option(at_least=1, at_most=MAX_SIDE, help="One side or [height, width].")
    interp: str = option("LINEAR", choices=_INTERP, help=_INTERP_HELP)
    keep_ratio: bool = option(False, help="Keep the aspect ratio and fit the image inside `target_size`.")

    def size(self) -> Size:
        """Height and width."""
        target = self.target_size
        return (target, target) if isinstance(target, int) else (target[0], target[1])

    def result(self, height: int, width: int) -> Size:
        """Height and width after resizing an image of this size."""
        wanted = self.size()
        if not self.keep_ratio:
            return wanted
        scale = min(wanted[0] / height, wanted[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return resize(image, self.result(*image.shape[:2]), self.interp, rng)

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return None if self.keep_ratio else self.size()

    def shrink_limit(self, size: Size) -> float:
        ratios = [have / want for have, want in zip(size, self.size())]
        return max(ratios) if self.keep_ratio else min(ratios)


@dataclasses.dataclass(frozen=True)
class ResizeByShort(Transform):
    """Resize the short side to ``short_size``, but the long side to at most ``max_size`` (-1: no limit)."""

    short_size: int = option(256, at_least=1, at_most=MAX_SIDE, help="Short side of the result.")
    max_size: int = option(-1, at_least=-1, at_most=MAX_PIXELS, help="Largest long side; -1: no limit.")
    interp: str = option("LINEAR", choices=_INTERP, help=_INTERP_HELP)

    def _scale(self, height: int, width: int) -> float:
        scale = self.short_size / min(height, width)
        if 0 < self.max_size < round(scale * max(height, width)):
            scale = self.max_size / max(height, width)
        return scale

    def result(self, height: int, width: int) -> Size:
        """Height and width after resizing an image of this size.

        Raises:
            ImageError: the result would be too large to keep.
        """
        scale = self._scale(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if size[0] * size[1] > MAX_PIXELS:
            raise ImageError(
                tr(
                    "is {width} x {height} pixels and would become {new_width} x {new_height}; set max_size of "
                    "ResizeByShort",
                    width=width,
                    height=height,
                    new_width=size[1],
                    new_height=size[0],
                )
            )
        return size

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return resize(image, self.result(*image.shape[:2]), self.interp, rng)

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return (self.short_size, self.short_size) if size and size[0] == size[1] and self.max_size < 1 else None

    def shrink_limit(self, size: Size) -> float:
        return 1 / self._scale(*size)


@dataclasses.dataclass(frozen=True)
class RandomResizeByShort(Transform):
    """:class:`ResizeByShort` to a side drawn from ``short_sizes``."""

    short_sizes: list[int] = option(
        at_least=1, at_most=MAX_SIDE, help="Short sides, of which one is drawn for each image."
    )
    max_size: int = option(-1, at_least=-1, at_most=MAX_PIXELS, help="Largest long side; -1: no limit.")
    interp: str = option("LINEAR", choices=_INTERP, help=_INTERP_HELP)

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        short = self.short_sizes[rng.integers(len(self.short_sizes))]
        return ResizeByShort(short, self.max_size, self.interp)(image, rng)

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return None

    def shrink_limit(self, size: Size) -> float:
        return ResizeByShort(max(self.short_sizes), self.max_size).shrink_limit(size)


@dataclasses.dataclass(frozen=True)
class ResizeByLong(Transform):
    """Resize the long side to ``long_size``."""

    long_size: int = option(256, at_least=1, at_most=MAX_SIDE, help="Long side of the result.")
    interp: str = option("LINEAR", choices=_INTERP, help=_INTERP_HELP)

    def result(self, height: int, width: int) -> Size:
        """Height and width after resizing an image of this size."""
        scale = self.long_size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return resize(image, self.result(*image.shape[:2]), self.interp, rng)

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return None

    def shrink_limit(self, size: Size) -> float:
        return max(size) / self.long_size


@dataclasses.dataclass(frozen=True)
class CenterCrop(Transform):
    """Crop a square of side ``crop_size`` from the centre."""

    crop_size: int = option(224, at_least=1, at_most=MAX_SIDE, help="Side of the square.")

    def first(self, height: int, width: int) -> tuple[int, int]:
        """The first row and column of the square in an image of this size.

        Raises:
            ImageError: the image is smaller than the square.
        """
        side = self.crop_size
        if min(height, width) < side:
            raise ImageError(
                tr(
                    "is {width} x {height} pixels, less than CenterCrop's {side}; put ResizeByShort before it",
                    width=width,
                    height=height,
                    side=side,
                )
            )
        return (height - side) // 2, (width - side) // 2

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        (top, left), side = self.first(*image.shape[:2]), self.crop_size
        return image[top : top + side, left : left + side]

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return self.crop_size, self.crop_size


@dataclasses.dataclass(frozen=True)
class RandomCrop(Transform):
    """Crop a random rectangle and resize it to ``crop_size`` (random resized crop).

    As in PaddleX 2.1, a factor drawn from ``scaling`` multiplies the sides, so the area shrinks by its square. The
    aspect ratio (width / height, relative to the image's) is drawn from the part of ``aspect_ratio`` that fits.
    """

    crop_size: Union[int, list[int], None] = option(
        None,
        at_least=1,
        at_most=MAX_SIDE,
        help="One side or [height, width] of the result; null: the rectangle is not resized.",
    )
    aspect_ratio: tuple[float, float] = option(
        (0.5, 2.0),
        at_least=1 / MAX_RATIO,
        at_most=MAX_RATIO,
        help="Smallest and largest width / height, relative to the image's.",
    )
    scaling: tuple[float, float] = option(
        (0.3, 1.0),
        at_least=1 / MAX_RATIO,
        at_most=1,
        help="Smallest and largest factor of the sides; the area shrinks by its square.",
    )
    num_attempts: int = option(50, at_least=1, at_most=1000, help="Draws before the whole image is used.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        height, width = image.shape[:2]
        for _ in range(self.num_attempts):
            scale = rng.uniform(*self.scaling)
            low, high = max(self.aspect_ratio[0], scale**2), min(self.aspect_ratio[1], scale**-2)
            if low > high:
                continue  # no rectangle of this scale and these ratios fits into the image
            ratio = rng.uniform(low, high)
            crop_height, crop_width = int(height * scale / ratio**0.5), int(width * scale * ratio**0.5)
            if 1 <= crop_height <= height and 1 <= crop_width <= width:
                top = rng.integers(height - crop_height + 1)
                left = rng.integers(width - crop_width + 1)
                image = image[top : top + crop_height, left : left + crop_width]
                break
        if self.crop_size is None:
            return image
        return Resize(self.crop_size)(image, rng)

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return None if self.crop_size is None else Resize(self.crop_size).size()

    def shrink_limit(self, size: Size) -> float:
        if self.crop_size is None:
            return 1.0
        smallest, (low, high) = self.scaling[0], self.aspect_ratio
        # The smallest height and width relative to the image's: the ratio is between scale**2 and scale**-2.
        height = min(1.0, max(smallest / high**0.5, smallest**2))
        width = min(1.0, max(smallest * low**0.5, smallest**2))
        return Resize(self.crop_size).shrink_limit((size[0] * height, size[1] * width))


@dataclasses.dataclass(frozen=True)
class RandomScaleAspect(Transform):
    """Crop a random rectangle and resize it to the original size."""

    min_scale: float = option(
        0.5, at_least=0, at_most=1, help="Smallest factor of the sides; 0 turns the transform off."
    )
    aspect_ratio: float = option(
        0.33,
        at_least=0,
        at_most=1,
        help="Smallest width / height relative to the image's; the largest is its inverse; 0 turns the transform off.",
    )

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        if self.min_scale == 0 or self.aspect_ratio == 0:
            return image
        ratios = (self.aspect_ratio, 1 / self.aspect_ratio)
        return RandomCrop(list(image.shape[:2]), ratios, (max(self.min_scale, 1 / MAX_RATIO), 1.0), 10)(image, rng)


@dataclasses.dataclass(frozen=True)
class Padding(Transform):
    """Pad to ``target_size`` with ``im_padding_value``; ``pad_mode`` 0: right, bottom, 1: around, 2: left, top."""

    target_size: Union[int, list[int]] = option(at_least=1, at_most=MAX_SIDE, help="One side or [height, width].")
    pad_mode: int = option(
        0, at_least=0, at_most=2, help="Side to pad: 0: right and bottom, 1: all around, 2: left and top."
    )
    im_padding_value: tuple[float, float, float] = option(
        (127.5, 127.5, 127.5), at_least=0, at_most=255, help="Colour of the padding, RGB."
    )

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        height, width = Resize(self.target_size).size()
        free_y, free_x = height - image.shape[0], width - image.shape[1]
        if free_y < 0 or free_x < 0:
            raise ImageError(
                tr(
                    "is {width} x {height} pixels, larger than Padding's {largest_width} x {largest_height}",
                    width=image.shape[1],
                    height=image.shape[0],
                    largest_width=width,
                    largest_height=height,
                )
            )
        top, left = {0: (0, 0), 1: (free_y // 2, free_x // 2), 2: (free_y, free_x)}[self.pad_mode]
        canvas = np.empty((height, width, 3), image.dtype)
        canvas[:] = np.asarray(self.im_padding_value, np.float32).astype(image.dtype)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        return canvas

    def output_size(self, size: Optional[Size]) -> Optional[Size]:
        return Resize(self.target_size).size()


@dataclasses.dataclass(frozen=True)
class RandomHorizontalFlip(Transform):
    """Mirror left and right."""

    prob: float = option(0.5, at_least=0, at_most=1, help="Probability for each image.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return image[:, ::-1] if rng.random() < self.prob else image


@dataclasses.dataclass(frozen=True)
class RandomVerticalFlip(Transform):
    """Mirror top and bottom."""

    prob: float = option(0.5, at_least=0, at_most=1, help="Probability for each image.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        return image[::-1] if rng.random() < self.prob else image


@dataclasses.dataclass(frozen=True)
class Normalize(Transform):
    """Scale to 0..1 by ``min_val`` and ``max_val``, subtract ``mean``, divide by ``std``; returns float32."""

    mean: tuple[float, float, float] = option(
        (0.485, 0.456, 0.406),
        at_least=-MAX_LEVEL,
        at_most=MAX_LEVEL,
        help="Mean of each channel, after scaling to 0..1.",
    )
    std: tuple[float, float, float] = option(
        (0.229, 0.224, 0.225),
        at_least=1 / MAX_LEVEL,
        at_most=MAX_LEVEL,
        help="Standard deviation of each channel, after scaling to 0..1.",
    )
    min_val: tuple[float, float, float] = option(
        (0.0, 0.0, 0.0), at_least=-MAX_LEVEL, at_most=MAX_LEVEL, help="Value of each channel that becomes 0."
    )
    max_val: tuple[float, float, float] = option(
        (255.0, 255.0, 255.0), more_than=0, at_most=MAX_LEVEL, help="Value of each channel that becomes 1."
    )
    is_scale: bool = option(True, help="Scale to 0..1 first; false: `min_val` and `max_val` are ignored.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        planes = np.empty((3, *image.shape[:2]), np.float32)
        self.write(image, planes)
        return planes.transpose(1, 2, 0)

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Multiplier and offset per channel, in the arithmetic of PaddleX 3; both float32, (3,)."""
        low = np.asarray(self.min_val) if self.is_scale else np.zeros(3)
        span = np.asarray(self.max_val) - low if self.is_scale else np.ones(3)
        factor, offset = 1 / (span * self.std), -(low / span + self.mean) / self.std
        return factor.astype(np.float32), offset.astype(np.float32)

    def write(self, image: np.ndarray, planes: np.ndarray) -> None:
        """Write the normalised image into ``planes``, float32, (3, H, W): the layout of the network's input."""
        factor, offset = self.factors()
        # A plane of 224 x 224 stays in the core's cache, and its contiguous values fill vector registers: eight times
        # faster than on (H, W, 3), which would also need a transposed copy.
        for plane, channel, times, plus in zip(planes, cv2.split(contiguous(image)), factor, offset):
            plane[...] = channel
            plane *= times
            plane += plus

    def undo(self, image: np.ndarray) -> np.ndarray:
        """The pixels of a normalised image, float32 (H, W, 3): uint8, clipped to 0..255."""
        low = np.asarray(self.min_val if self.is_scale else (0, 0, 0))
        span = np.asarray(self.max_val) - low if self.is_scale else np.ones(3)
        values = (image * np.asarray(self.std) + np.asarray(self.mean)) * span + low
        return np.ascontiguousarray(np.clip(values, 0, 255).round().astype(np.uint8))


def resize(image: np.ndarray, size: Size, interp: str, rng: Rng) -> np.ndarray:
    """Resize to (height, width) with one of :data:`INTERPOLATIONS`; ``RANDOM`` draws one."""
    if image.shape[:2] == size:
        return image
    name = list(INTERPOLATIONS)[rng.integers(len(INTERPOLATIONS))] if interp == "RANDOM" else interp
    return cv2.resize(image, size[::-1], interpolation=INTERPOLATIONS[name])
