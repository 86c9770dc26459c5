"""Images drawn for the tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def random_image(seed: int, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    """Draw smooth random colours with a disc and a little noise: uint8 RGB, shape (height, width, 3)."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(30, 226, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    cv2.circle(image, centre, max(1, min(size) // 5), colour, -1)
    image += rng.normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def encoded_image(image: np.ndarray, suffix: str) -> bytes:
    """Encode an RGB image in the format of a suffix."""
    done, data = cv2.imencode(suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded_image(image, path.suffix))
