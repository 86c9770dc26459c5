"""Near duplicates: each kind of copy is found, other images are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pplc_cli.analysis.duplicates import difference_hashes, near_duplicates


def photograph(seed, height=240, width=320):
    """Smooth random colours, as in a photograph out of focus."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


COPIES = {
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "half the size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "twice the size": lambda image: cv2.resize(image, None, fx=2, fy=2),
    "re-encoded": lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_have_the_same_hash(kind):
    for seed in range(20):
        image = photograph(seed)
        copy = difference_hashes(COPIES[kind](image))
        bits = min(bin(own ^ copy[0]).count("1") for own in difference_hashes(image))
        assert bits <= 4, f"seed {seed}"


def test_a_hash_by_hand():
    image = np.zeros((8, 9, 3), np.uint8)
    image[0] = np.arange(9)[:, None] * 10  # the first row becomes brighter, all others stay black
    own, mirrored = difference_hashes(image)
    assert own == 0xFF << 56 and mirrored == 0


def test_pairs():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, 3000, dtype=np.uint64)
    mirrored = rng.integers(0, 1 << 63, 3000, dtype=np.uint64)
    embeddings = rng.standard_normal((3000, 64)).astype(np.float32)
    hashes[2500] = hashes[7] ^ np.uint64(0b101)  # two bits, other embeddings
    mirrored[1500] = hashes[1400]  # a mirror image
    hashes[20] = hashes[10] ^ np.uint64(0x3FF)  # ten bits, similar embeddings
    embeddings[20] = embeddings[10] + 0.3 * embeddings[20]
    hashes[21] = hashes[11] ^ np.uint64(0x3FF)  # ten bits, other embeddings
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = {(pair.first, pair.second): pair for pair in near_duplicates(hashes, mirrored, embeddings)}
    expected = {(7, 2500): 2, (1400, 1500): 0, (10, 20): 10}
    assert expected.items() <= {key: pair.bits for key, pair in found.items()}.items()
    assert (11, 21) not in found
    assert found[10, 20].similarity == pytest.approx(float(embeddings[10] @ embeddings[20]), abs=1e-5)
    # Random hashes of 64 bits are within 4 bits in one of 3e13 pairs.
    assert set(found) == set(expected)
