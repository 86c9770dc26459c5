"""What can be told of one image: size, light, sharpness, and hashes that find its copies."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import cv2
import numpy as np
from PIL import Image

from pplc_cli.analysis.duplicates import difference_hashes
from pplc_cli.data.decode import inspect_image

SIDE = 256  # pixels; the short side at which light and sharpness are measured, so that sizes do not matter
_ORIENTATION = 0x0112  # EXIF tag


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """Properties of an image.

    Attributes:
        width, height: pixels, as a viewer shows it.
        kind: the file's format, as JPEG.
        turned: whether EXIF says that the stored pixels must be turned or mirrored.
        brightness: mean grey value, 0 to 255.
        contrast: standard deviation of the grey values.
        sharpness: variance of the Laplacian of the grey values.
        colour: mean difference between the largest and the smallest channel, 0 for grey images.
        digest: SHA-256 of the file.
        hash, mirrored_hash: see :func:`pplc_cli.analysis.duplicates.difference_hashes`.
    """

    width: int
    height: int
    kind: str
    turned: bool
    brightness: float
    contrast: float
    sharpness: float
    colour: float
    digest: str
    hash: int
    mirrored_hash: int


def measure_image(data: bytes) -> tuple[ImageFacts, np.ndarray]:
    """Decode a file; return its properties and its pixels, uint8 RGB (H, W, 3).

    Raises:
        ImageError: as in :func:`pplc_cli.data.decode.decode_image`.
    """
    pixels, kind, _ = inspect_image(data)
    height, width = pixels.shape[:2]
    scale = SIDE / min(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    own, mirrored = difference_hashes(small)
    facts = ImageFacts(
        width=width,
        height=height,
        kind=kind,
        turned=_orientation(data) > 1,
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        colour=float((small.max(axis=2) - small.min(axis=2)).mean()),
        digest=hashlib.sha256(data).hexdigest(),
        hash=own,
        mirrored_hash=mirrored,
    )
    return facts, pixels


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF part of an image that can be shown
        return 1
