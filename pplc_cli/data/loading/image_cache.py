"""Memory of the loader: decoded images within a budget, and reusable arrays for batches."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Optional

import numpy as np

from pplc_cli.base.errors import DataError, ImageError, ImageMemoryError
from pplc_cli.base.hardware import available_memory
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.data.decode import decode_image, jpeg_size
from pplc_cli.data.image_files import read_bytes
from pplc_cli.data.lists import Sample


class UnreadableImage(DataError):
    """An image of a data set cannot be read.

    Attributes:
        fault: the file and the reason, without the advice that ends the message.
    """

    def __init__(self, fault: str) -> None:
        self.fault = fault
        super().__init__(
            tr("{fault}; replace or remove the file, and run pplc split --force if lists name it", fault=fault)
        )


class ImageCache:
    """Decoded images in memory. The first images that fit into the budget stay; several loaders may share the cache.

    Attributes:
        budget: limit in bytes.
        used: bytes of the images held.
    """

    def __init__(self, budget_mb: Optional[int] = None) -> None:
        """Args: budget_mb: None takes half of the memory that is available now."""
        self.budget = available_memory() // 2 if budget_mb is None else budget_mb << 20
        self.used = 0
        self._images: dict[tuple[str, int], np.ndarray] = {}
        self._sizes: dict[str, Optional[tuple[int, int]]] = {}  # a few bytes per image; None: not a JPEG
        self._lock = ForkSafeLock()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the cache to a run, which may take of the budget for other things; it has it back afterwards."""
        budget = self.budget
        try:
            yield
        finally:
            self.budget = budget

    def get(self, sample: Sample, reduction: Optional[Callable[[int, int], int]] = None) -> np.ndarray:
        """Return the decoded image, uint8 RGB (H, W, 3), from memory or from its file.

        Args:
            sample: the image.
            reduction: maps a JPEG's height and width to the factor by which the decoder shrinks it; None: full size.
                The result does not depend on the content of the cache.

        Raises:
            DataError: the file cannot be read any more; the message names it.
        """
        path, data = str(sample.path), None
        try:
            if reduction is not None and path not in self._sizes:
                data = read_bytes(sample.path)
                self._sizes[path] = jpeg_size(data)
            size = self._sizes.get(path) if reduction is not None else None
            key = path, reduction(*size) if reduction is not None and size else 1
            image = self._images.get(key)
            if image is not None:
                return image
            image = decode_image(data or read_bytes(sample.path), key[1])
        except ImageMemoryError as error:
            raise DataError(f"{sample.path} {error}") from None
        except ImageError as error:
            raise UnreadableImage(f"{sample.path} {error}") from None
        with self._lock:
            if key not in self._images and self.used + image.nbytes <= self.budget:
                self._images[key] = image
                self.used += image.nbytes
        return image


class Buffers:
    """Arrays whose memory is reused when nothing refers to them: allocating pages takes longer than filling them."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialised float32 array."""
        count = math.prod(shape)
        memory = self._free.pop() if self._free else None
        if memory is None or len(memory) < count:
            memory = np.empty(count, np.float32)
        # Views keep the array of frombuffer alive, so its finalizer runs when the last view is deleted.
        array = np.frombuffer(memory.data, np.float32, count)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(shape)
