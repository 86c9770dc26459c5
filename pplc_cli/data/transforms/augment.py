"""Random augmentations of one image, for training only: colour, blur, RandAugment, erasing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable

import cv2
import numpy as np

from pplc_cli.base.schema import option
from pplc_cli.data.transforms.basic import Rng, Transform, contiguous
from pplc_cli.data.transforms.limits import MAX_RATIO

MAX_CHANGE = 100  # of a factor; with 2, pixels are already black or white


@dataclasses.dataclass(frozen=True)
class RandomDistort(Transform):
    """Change brightness, contrast, saturation and hue, each with its probability, in random order.

    ``count`` limits how many of the four are tried. The code of PaddleX 2.1 deviates from its documentation: it skips a
    change with the given probability, and for brightness it adds half a grey level. This transform follows the
    documentation.
    """

    brightness_range: float = option(
        0.5,
        at_least=0,
        at_most=MAX_CHANGE,
        help="Largest change of the brightness: 0.5 draws a factor from 0.5 to 1.5.",
    )
    brightness_prob: float = option(0.5, at_least=0, at_most=1, help="Probability of a change of the brightness.")
    contrast_range: float = option(
        0.5, at_least=0, at_most=MAX_CHANGE, help="Largest change of the contrast: 0.5 draws a factor from 0.5 to 1.5."
    )
    contrast_prob: float = option(0.5, at_least=0, at_most=1, help="Probability of a change of the contrast.")
    saturation_range: float = option(
        0.5,
        at_least=0,
        at_most=MAX_CHANGE,
        help="Largest change of the saturation: 0.5 draws a factor from 0.5 to 1.5.",
    )
    saturation_prob: float = option(0.5, at_least=0, at_most=1, help="Probability of a change of the saturation.")
    hue_range: float = option(18, at_least=0, at_most=180, help="Largest change of the hue, in degrees.")
    hue_prob: float = option(0.5, at_least=0, at_most=1, help="Probability of a change of the hue.")
    random_apply: bool = option(
        True, help="Apply the changes in random order; false: brightness, contrast, saturation, hue."
    )
    count: int = option(4, at_least=1, at_most=4, help="With `random_apply`, how many of the four changes are tried.")
    shuffle_channel: bool = option(False, help="Also permute the channels, with probability 0.5.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        names = ["brightness", "contrast", "saturation", "hue"]
        if self.random_apply:
            names = [names[i] for i in rng.permutation(4)[: self.count]]
        for name in names:
            strength = getattr(self, f"{name}_range")
            if rng.random() < getattr(self, f"{name}_prob"):
                image = ADJUSTMENTS[name](image, rng.uniform(-strength, strength))
        if self.shuffle_channel and rng.random() < 0.5:
            image = image[:, :, rng.permutation(3)]
        return image


@dataclasses.dataclass(frozen=True)
class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue, each by a random amount, in random order."""

    brightness: float = option(
        0.4,
        at_least=0,
        at_most=MAX_CHANGE,
        help="Largest change of the brightness: 0.4 draws a factor from 0.6 to 1.4.",
    )
    contrast: float = option(
        0.4, at_least=0, at_most=MAX_CHANGE, help="Largest change of the contrast: 0.4 draws a factor from 0.6 to 1.4."
    )
    saturation: float = option(
        0.4,
        at_least=0,
        at_most=MAX_CHANGE,
        help="Largest change of the saturation: 0.4 draws a factor from 0.6 to 1.4.",
    )
    hue: float = option(
        0.0, at_least=0, at_most=0.5, help="Largest change of the hue, as a share of the colour circle."
    )

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        strengths = {**dataclasses.asdict(self), "hue": self.hue * 360}
        for name in [list(ADJUSTMENTS)[i] for i in rng.permutation(4)]:
            if strengths[name]:
                image = ADJUSTMENTS[name](image, rng.uniform(-strengths[name], strengths[name]))
        return image


@dataclasses.dataclass(frozen=True)
class RandomBlur(Transform):
    """Blur with a Gaussian kernel of 3, 5, 7 or 9 pixels."""

    prob: float = option(0.1, at_least=0, at_most=1, help="Probability for each image.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        if rng.random() >= self.prob:
            return image
        side = int(rng.choice([3, 5, 7, 9]))
        return cv2.GaussianBlur(contiguous(image), (side, side), 0)


@dataclasses.dataclass(frozen=True)
class RandAugment(Transform):
    """``num_ops`` random changes of strength ``magnitude`` (0 to 10). Cubuk et al., 2020, arXiv:1909.13719."""

    num_ops: int = option(2, at_least=1, at_most=100, help="Number of random changes per image.")
    magnitude: float = option(9, at_least=0, at_most=10, help="Strength of the changes.")

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        level = self.magnitude / 10
        for index in rng.integers(len(_RANDAUGMENT), size=self.num_ops):
            image = _RANDAUGMENT[index](image, level * rng.choice([-1.0, 1.0]))
        return image


@dataclasses.dataclass(frozen=True)
class RandomErasing(Transform):
    """Fill a random rectangle with noise. Zhong et al., 2017, arXiv:1708.04896."""

    prob: float = option(0.25, at_least=0, at_most=1, help="Probability for each image.")
    area: tuple[float, float] = option(
        (0.02, 0.33), more_than=0, at_most=1, help="Smallest and largest share of the image's area."
    )
    aspect_ratio: tuple[float, float] = option(
        (0.3, 3.3),
        at_least=1 / MAX_RATIO,
        at_most=MAX_RATIO,
        help="Smallest and largest height / width of the rectangle.",
    )

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        if rng.random() >= self.prob:
            return image
        height, width = image.shape[:2]
        for _ in range(10):
            area = rng.uniform(*self.area) * height * width
            ratio = np.exp(rng.uniform(*np.log(self.aspect_ratio)))
            h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 1 <= h <= height and 1 <= w <= width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                image = image.copy()
                noise = rng.integers(0, 256, (h, w, 3)) if image.dtype == np.uint8 else rng.standard_normal((h, w, 3))
                image[top : top + h, left : left + w] = noise
                break
        return image


def _blend(image: np.ndarray, other: Any, change: float) -> np.ndarray:
    """Return ``other + (1 + change) * (image - other)``, clipped to uint8."""
    factor = max(0.0, 1 + change)
    return np.clip(image * np.float32(factor) + np.float32(1 - factor) * other, 0, 255).astype(np.uint8)


_VALUES = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)  # an image of every value


def _by_value(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a change that depends only on a channel's value; compute it once per value, not once per pixel."""
    return cv2.LUT(contiguous(image), change(_VALUES).reshape(1, 256, 3))


def _grey(image: np.ndarray) -> np.ndarray:
    return image @ np.asarray([0.299, 0.587, 0.114], np.float32)


def _shift_hue(image: np.ndarray, degrees: float) -> np.ndarray:
    hsv = cv2.cvtColor(contiguous(image), cv2.COLOR_RGB2HSV)
    hsv[:, :, 0] = (hsv[:, :, 0].astype(np.int16) + round(degrees / 2)) % 180  # OpenCV's unit of hue is 2 degrees
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


ADJUSTMENTS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brightness": lambda image, change: _blend(image, np.float32(0), change),
    "contrast": lambda image, change: _blend(image, _grey(image).mean(), change),
    "saturation": lambda image, change: _blend(image, _grey(image)[:, :, None], change),
    "hue": _shift_hue,
}


def warp(image: np.ndarray, matrix: Sequence[Sequence[float]]) -> np.ndarray:
    """Apply an affine transform about the centre; areas outside the image become grey."""
    height, width = image.shape[:2]
    middle = np.asarray([width - 1, height - 1]) / 2  # OpenCV's origin is the centre of the first pixel
    full = np.asarray(matrix, np.float64)
    full[:, 2] += middle - full[:, :2] @ middle
    grey = (127, 127, 127)
    return cv2.warpAffine(contiguous(image), full, (width, height), borderValue=grey)


def _rotate(image: np.ndarray, level: float) -> np.ndarray:
    angle = np.deg2rad(30 * level)
    return warp(image, [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])


def _equalize(image: np.ndarray, level: float) -> np.ndarray:
    del level
    return np.stack([cv2.equalizeHist(np.ascontiguousarray(image[:, :, c])) for c in range(3)], axis=2)


def autocontrast(image: np.ndarray, level: float) -> np.ndarray:
    """Stretch each channel to 0..255; ``level`` is ignored."""
    del level
    channels = cv2.split(contiguous(image))  # NumPy takes a hundred times as long over the first two axes
    low, high = (np.asarray([f(c) for c in channels], np.float32) for f in (np.min, np.max))
    plain = low == high  # a channel with a single value stays unchanged
    low, high = np.where(plain, 0, low), np.where(plain, 255, high)
    return _by_value(image, lambda values: np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


def _posterize(image: np.ndarray, level: float) -> np.ndarray:
    return image & np.uint8(0xFF << round(4 * abs(level)) & 0xFF)


def _solarize(image: np.ndarray, level: float) -> np.ndarray:
    return _by_value(image, lambda values: np.where(values < 256 * (1 - abs(level)), values, 255 - values))


def _sharpen(image: np.ndarray, level: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(contiguous(image), (3, 3), 0)
    return _blend(image, smooth.astype(np.float32), 0.9 * level)


# The transforms of the paper. level is between -1 and 1; each line scales it to the largest change of the paper.
_RANDAUGMENT: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (
    lambda image, level: image,
    lambda image, level: ADJUSTMENTS["brightness"](image, 0.9 * level),
    lambda image, level: ADJUSTMENTS["contrast"](image, 0.9 * level),
    lambda image, level: ADJUSTMENTS["saturation"](image, 0.9 * level),
    lambda image, level: warp(image, [[1, 0.3 * level, 0], [0, 1, 0]]),
    lambda image, level: warp(image, [[1, 0, 0], [0.3 * level, 1, 0]]),
    lambda image, level: warp(image, [[1, 0, 0.45 * level * image.shape[1]], [0, 1, 0]]),
    lambda image, level: warp(image, [[1, 0, 0], [0, 1, 0.45 * level * image.shape[0]]]),
    _rotate,
    _equalize,
    autocontrast,
    _posterize,
    _solarize,
    _sharpen,
)
