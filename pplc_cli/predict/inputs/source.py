"""An image to predict, and how to read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from pplc_cli.base.errors import DownloadError, ImageError
from pplc_cli.data.decode import convert_pillow, decode_image
from pplc_cli.data.image_files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_DOWNLOAD = 200 << 20
LIST_SUFFIXES = (".txt", ".list", ".lst")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm")
ADDRESSES = ("http://", "https://")


@dataclasses.dataclass(frozen=True)
class Source:
    """An image to predict.

    Attributes:
        name: the name in the prediction; also the path or URL if ``data`` and ``pixels`` are None.
        data: the encoded image.
        pixels: the decoded image, uint8 RGB (H, W, 3).
        error: why the image cannot be read, if that is known already.
    """

    name: str
    data: Optional[bytes] = dataclasses.field(default=None, repr=False)
    pixels: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)
    error: Optional[str] = None

    def read(self) -> bytes:
        """Read the encoded image from the file or URL.

        Raises:
            ImageError: it cannot be read.
        """
        if self.error is not None:
            raise ImageError(self.error)
        if self.data is not None:
            return self.data
        if self.name.startswith(ADDRESSES):
            from pplc_cli.base.storage.download import read_url

            try:
                return read_url(self.name, MAX_DOWNLOAD)
            except DownloadError as error:
                raise ImageError(str(error)) from None
        return read_bytes(self.name)

    def decode(self) -> np.ndarray:
        """Decode the image to uint8 RGB (H, W, 3).

        Raises:
            ImageError: it cannot be read or decoded.
        """
        return decode_image(self.read()) if self.pixels is None else self.pixels


ImageLike = Union[str, Path, bytes, np.ndarray, "Image", Source]


def name_of(image: ImageLike) -> str:
    """The name of an image in its prediction."""
    if isinstance(image, Source):
        return image.name
    if isinstance(image, (str, Path)):
        return str(image)
    return str(getattr(image, "filename", "") or type(image).__name__)  # Pillow images have the file's name


def held_bytes(image: ImageLike) -> int:
    """Bytes of memory that an image holds while it waits; 0 for a path."""
    held = (image.data if image.data is not None else image.pixels) if isinstance(image, Source) else image
    if isinstance(held, np.ndarray):
        return held.nbytes
    return len(held) if isinstance(held, bytes) else 0


def pixels_of(image: ImageLike) -> np.ndarray:
    """Decode anything that :meth:`Predictor.predict` takes to uint8 RGB (H, W, 3).

    Raises:
        ImageError: it cannot be decoded.
    """
    if isinstance(image, Source):
        return image.decode()
    if isinstance(image, (str, Path)):
        return Source(str(image)).decode()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
        return image
    if callable(getattr(image, "convert", None)):  # a Pillow image, recognised without importing Pillow
        return convert_pillow(image)
    raise ImageError(f"expected a path, bytes, an array or a Pillow image, got {type(image).__name__}")
