"""A source of images: its name and how to read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from pplc_cli.base.errors import DownloadError, ImageError
from pplc_cli.data.decode import decode_image
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
        name: what the answer is printed under.
        data: the file's bytes where they are at hand, else they are read from the name.
        pixels: the decoded image where it is at hand, uint8 RGB (H, W, 3).
        error: why there is no image, where that is known before it is read.
    """

    name: str
    data: Optional[bytes] = dataclasses.field(default=None, repr=False)
    pixels: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)
    error: Optional[str] = None

    def read(self) -> bytes:
        """The bytes of the file or address.

        Raises:
            ImageError: they cannot be had.
        """
        if self.error is not None:
            raise ImageError(self.error)
        if self.data is not None:
            return self.data
        if self.name.startswith(ADDRESSES):
            from pplc_cli.base.download import read_url

            try:
                return read_url(self.name, MAX_DOWNLOAD)
            except DownloadError as error:
                raise ImageError(str(error)) from None
        return read_bytes(self.name)

    def decode(self) -> np.ndarray:
        """The image, uint8 RGB (H, W, 3).

        Raises:
            ImageError: it cannot be used.
        """
        return decode_image(self.read()) if self.pixels is None else self.pixels


ImageLike = Union[str, Path, bytes, np.ndarray, "Image", Source]


def name_of(picture: ImageLike) -> str:
    """What an answer is given under."""
    if isinstance(picture, Source):
        return picture.name
    if isinstance(picture, (str, Path)):
        return str(picture)
    return str(getattr(picture, "filename", "") or type(picture).__name__)  # Pillow's know their files


def held_bytes(picture: ImageLike) -> int:
    """Memory that an image which waits takes, where it is more than a name."""
    held = (picture.data if picture.data is not None else picture.pixels) if isinstance(picture, Source) else picture
    if isinstance(held, np.ndarray):
        return held.nbytes
    return len(held) if isinstance(held, bytes) else 0


def pixels_of(picture: ImageLike) -> np.ndarray:
    """uint8 RGB (H, W, 3) of anything that :meth:`Predictor.predict` takes.

    Raises:
        ImageError: it is no image that can be used.
    """
    if isinstance(picture, Source):
        return picture.decode()
    if isinstance(picture, (str, Path)):
        return Source(str(picture)).decode()
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return decode_image(bytes(picture))
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise ImageError(f"expected uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
        return picture
    if callable(getattr(picture, "convert", None)):  # Pillow's, which may be loaded from anywhere
        return _from_pillow(picture)
    raise ImageError(f"expected a path, bytes, an array or an image of Pillow's, got {type(picture).__name__}")


def _from_pillow(image: Image) -> np.ndarray:
    from PIL import ImageOps

    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
