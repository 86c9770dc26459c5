"""An image to predict, and how to read it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union, cast

import numpy as np

from pplc_cli.base.errors import ImageError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.data.decode import convert_pillow, decode_image
from pplc_cli.data.image_files import read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


MAX_ENCODED = 200 << 20  # bytes of an image from an address, an archive or standard input
LIST_SUFFIXES = (".txt", ".list", ".lst")
TABLE_SUFFIXES = (".csv", ".tsv")
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
            from pplc_cli.predict.inputs.address import read_address

            return read_address(self.name, MAX_ENCODED)
        return read_bytes(self.name)

    def decode(self) -> np.ndarray:
        """Decode the image to uint8 RGB (H, W, 3).

        Raises:
            ImageError: it cannot be read or decoded.
        """
        return decode_image(self.read()) if self.pixels is None else self.pixels


ImageLike = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, np.ndarray, "Image", Source]


def name_of(image: ImageLike) -> str:
    """The name of an image in its prediction."""
    if isinstance(image, Source):
        return image.name
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    return str(getattr(image, "filename", "") or type(image).__name__)  # Pillow images have the file's name


def held_bytes(image: ImageLike) -> int:
    """Bytes of memory that an image holds while it waits; 0 for a path."""
    held: Any = (image.data if image.data is not None else image.pixels) if isinstance(image, Source) else image
    if isinstance(held, (np.ndarray, memoryview)):
        return held.nbytes
    if isinstance(held, (bytes, bytearray)):
        return len(held)
    return 4 * held.width * held.height if _is_pillow(held) else 0


def is_one(image: object) -> bool:
    """Whether this is one image, by its type and shape."""
    if isinstance(image, np.ndarray):
        return _is_decoded(image)
    return isinstance(image, (str, os.PathLike, bytes, bytearray, memoryview, Source)) or _is_pillow(image)


def _is_decoded(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0


def as_images(images: Union[ImageLike, Iterable[ImageLike]]) -> Iterable[ImageLike]:
    """Turn one image into a list of it, and leave an iterable of images as it is.

    Raises:
        PredictError: it is neither.
    """
    expected = tr("a path, bytes, a uint8 array (H, W, 3) or (N, H, W, 3), a Pillow image, or several of them")
    if is_one(images):
        return [cast(ImageLike, images)]
    dimensions = getattr(images, "ndim", 1)  # also of tensors, whose rows would be taken for images
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OSU":
        if dimensions == 4 and all(map(_is_decoded, images[:1])):
            return images
        raise PredictError(
            tr(
                "expected {expected}, got an array of {dtype} {shape}",
                expected=expected,
                dtype=images.dtype,
                shape=images.shape,
            )
        )
    several = isinstance(images, Iterable) and dimensions == 1
    if not several or isinstance(images, Mapping) or hasattr(images, "read"):  # an open file gives its lines
        raise PredictError(tr("expected {expected}, got {kind}", expected=expected, kind=type(images).__name__))
    return cast(Iterable[ImageLike], images)


def pixels_of(image: ImageLike, *, bgr: bool = False) -> np.ndarray:
    """Decode anything that :meth:`Predictor.predict` takes to uint8 RGB (H, W, 3).

    Args:
        image: the image.
        bgr: arrays have the channels of OpenCV, blue first.

    Raises:
        ImageError: it cannot be decoded.
    """
    if isinstance(image, Source):
        return image.decode()
    if isinstance(image, (str, os.PathLike)):
        return Source(os.fsdecode(image)).decode()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image))
    if isinstance(image, np.ndarray):
        if not _is_decoded(image):
            raise ImageError(tr("expected uint8 (H, W, 3), got {dtype} {shape}", dtype=image.dtype, shape=image.shape))
        return np.ascontiguousarray(image[..., ::-1]) if bgr else image
    if _is_pillow(image):
        return convert_pillow(image)
    raise ImageError(tr("expected a path, bytes, an array or a Pillow image, got {kind}", kind=type(image).__name__))


def _is_pillow(image: object) -> bool:
    """Whether this is a Pillow image, without importing Pillow."""
    return any(each.__module__ == "PIL.Image" for each in type(image).__mro__)
