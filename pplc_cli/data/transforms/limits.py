"""Bounds of the transforms' arguments."""

from __future__ import annotations

MAX_SIDE = 4096  # pixels; a float32 image of this size takes 200 MB
MAX_PIXELS = 1 << 27  # of a resized image, in uint8 400 MB: a thin one of a short side becomes that long
MAX_TRANSFORMS = 64  # in one list
MAX_RATIO = 1000  # of the sides of a rectangle; the smallest is its inverse
MAX_LEVEL = 100_000  # of a mean, a deviation or a pixel value, whatever its unit
