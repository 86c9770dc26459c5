"""Images that show the same photograph: re-encoded, resized, mirrored, cropped a little, brighter or darker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np

BITS = 64  # of a hash
# A pair is a near duplicate if its hashes differ in at most SURE bits, or in at most POSSIBLE bits while its embeddings
# are as similar as SIMILAR. Measured on 500 photographs (124,750 pairs) and six kinds of copies: at least 99 % of each
# kind were found, and no false pair; see scripts/benchmark_analysis.py.
SURE, POSSIBLE, SIMILAR = 4, 16, 0.88
_BLOCK = 1024  # images that are compared with all others at a time


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images that show the same photograph; ``first`` is the smaller index.

    Attributes:
        first, second: indices of the images.
        bits: bits in which their hashes differ, in the better of both orientations.
        similarity: cosine of their embeddings.
    """

    first: int
    second: int
    bits: int
    similarity: float


def difference_hashes(image: np.ndarray) -> tuple[int, int]:
    """Hash an image, uint8 RGB (H, W, 3), and its mirror image: whether each of 8 x 8 cells is darker than the next."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    both = (cells, cells[:, ::-1])
    own, mirrored = (int.from_bytes(np.packbits(each[:, 1:] > each[:, :-1]).tobytes(), "big") for each in both)
    return own, mirrored


def near_duplicates(hashes: np.ndarray, mirrored: np.ndarray, embeddings: np.ndarray) -> list[Pair]:
    """Find all pairs of images that show the same photograph.

    Args:
        hashes: uint64 (images,), see :func:`difference_hashes`.
        mirrored: uint64 (images,), of the mirror images.
        embeddings: float (images, features), of length 1.

    Returns:
        The pairs in the order of their indices.
    """
    return list(_pairs(hashes, mirrored, embeddings))


def _signs(hashes: np.ndarray) -> np.ndarray:
    """The bits of hashes as -1 and 1: float32 (images, BITS)."""
    return np.unpackbits(hashes[:, None].view(np.uint8), axis=1).astype(np.float32) * 2 - 1


def _pairs(hashes: np.ndarray, mirrored: np.ndarray, embeddings: np.ndarray) -> Iterator[Pair]:
    own, others = _signs(hashes), (_signs(hashes), _signs(mirrored))
    for start in range(0, len(hashes), _BLOCK):
        # Only with the images behind, so that each pair comes once. Their signs' product is BITS - 2 * distance.
        agreement = np.maximum(*(own[start : start + _BLOCK] @ other[start:].T for other in others))
        distances = (BITS - agreement) / 2
        firsts, seconds = np.nonzero(distances <= POSSIBLE)
        behind = seconds > firsts
        for first, second in zip(firsts[behind], seconds[behind]):
            bits = int(distances[first, second])
            similarity = float(embeddings[start + first].astype(np.float32) @ embeddings[start + second])
            if bits <= SURE or similarity >= SIMILAR:
                yield Pair(int(start + first), int(start + second), bits, similarity)
