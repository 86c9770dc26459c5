"""The largest images."""

from __future__ import annotations

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr

MAX_PIXELS = 178_956_970  # Pillow's own limit: 2/3 GB as 8-bit RGB
MAX_ELONGATION = 200  # a 1 x 5000 image, resized to a short side of 256, would need 1 GB


def check_size(width: int, height: int) -> None:
    """Raise an ImageError for an image beyond the limits."""
    if width * height > MAX_PIXELS:
        raise ImageError(
            tr(
                "is too large: {width} x {height} pixels; the limit is {limit} million",
                width=width,
                height=height,
                limit=MAX_PIXELS // 1_000_000,
            )
        )
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise ImageError(
            tr(
                "is too elongated: {width} x {height} pixels; the limit is {limit} : 1",
                width=width,
                height=height,
                limit=MAX_ELONGATION,
            )
        )
