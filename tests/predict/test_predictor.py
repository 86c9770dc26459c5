"""What a predictor takes for one image, for many, and for neither; and the order of channels."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.images import random_image, write_image
from pplc_cli.base.errors import PredictError
from pplc_cli.predict import predictor as module
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.ordered_workers import MAX_BYTES
from pplc_cli.predict.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(untrained):
    return Predictor(untrained(0), engine="pplc", workers=2)


@pytest.fixture
def image(tmp_path):
    write_image(tmp_path / "red.png", random_image(3))
    return tmp_path / "red.png"


def test_one_image_is_taken_as_one(predictor, image):
    data, pixels = image.read_bytes(), cv2.imread(str(image))[..., ::-1]
    with Image.open(image) as opened:
        kinds = [str(image), image, data, bytearray(data), memoryview(data), pixels, opened, Source(str(image))]
        found = [list(predictor.predict(kind, top_k=5)) for kind in kinds]
        ones = [predictor.predict_one(kind, top_k=5) for kind in kinds]
    assert [len(predictions) for predictions in found] == [1] * len(kinds)
    assert all(one.top == predictions[0].top == found[0][0].top for one, predictions in zip(ones, found))
    assert ones[0].path == str(image) and len(ones[0].top) == 5


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, lambda names: (name for name in names), lambda names: dict.fromkeys(names).keys(), np.array],
    ids=["list", "tuple", "iterator", "generator", "keys", "array of names"],
)
def test_many_images_come_from_any_iterable(predictor, image, make):
    (image.parent / "b.png").write_bytes(image.read_bytes())
    names = [str(image), str(image.parent / "b.png")]
    assert [prediction.path for prediction in predictor.predict(make(names))] == names
    assert not list(predictor.predict([]))


def test_a_batch_is_an_array_of_images(predictor):
    batch = np.stack([random_image(number) for number in range(3)])
    assert [p.top for p in predictor.predict(batch)] == [p.top for p in predictor.predict(list(batch))]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        (2.5, "got float"),
        ({"a.jpg": 1}, "got dict"),
        (np.zeros((8, 8, 3), np.float32), r"got an array of float32 \(8, 8, 3\)"),
        (np.zeros((2, 8, 8, 3)), r"got an array of float64 \(2, 8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"got an array of uint8 \(8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got an array of uint8 \(3, 8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got an array of uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got an array of uint8 \(0, 8, 3\)"),
        (np.zeros(5, np.uint8), r"got an array of uint8 \(5,\)"),
        (np.array(None), "got ndarray"),
        (io.BytesIO(b"x"), "got BytesIO"),
    ],
)
def test_everything_else_is_refused_at_once(predictor, wrong, got):
    with pytest.raises(PredictError, match=f"expected a path, bytes, .*{got}"):
        predictor.predict(wrong)


def test_tensors_are_refused_at_once(predictor):
    paddle = pytest.importorskip("paddle")
    with pytest.raises(PredictError, match="got Tensor"):
        predictor.predict(paddle.zeros([2, 3, 8, 8]))


def test_wrong_options_are_refused_at_once(predictor, image):
    for top_k in (0, -1, 1.5, None):
        with pytest.raises(PredictError, match="top_k: expected a whole number from 1"):
            predictor.predict(image, top_k=top_k)
    with pytest.raises(PredictError, match="channels: expected rgb or bgr, got 'BGR'"):
        predictor.predict(image, channels="BGR")
    for several in ([image], [], np.zeros((1, 8, 8, 3), np.uint8), None):
        with pytest.raises(PredictError, match="expected one image"):
            predictor.predict_one(several)


def test_a_wrong_item_has_an_error_and_the_others_go_on(predictor, image):
    missing = cv2.imread("nowhere.jpg")  # None, without an exception
    items = [missing, image, 7, ["x.jpg"], np.zeros((8, 8)), b"no image", image]
    found = list(predictor.predict(items))
    assert [p.error is None for p in found] == [False, True, False, False, False, False, True]
    assert "got NoneType" in found[0].error and "got float64 (8, 8)" in found[4].error


@pytest.mark.parametrize("many", [False, True])
def test_a_broken_pillow_image_has_an_error_and_the_others_go_on(predictor, image, many):
    whole = io.BytesIO()
    Image.fromarray(random_image(5, (200, 200))).save(whole, "JPEG")
    broken = [Image.open(io.BytesIO(whole.getvalue()[:1500]))]  # Pillow reads the pixels only when they are needed
    closed = Image.open(image)
    closed.close()
    found = list(predictor.predict([*broken, image, closed, image], many=many))
    assert [p.error is None for p in found] == [False, True, False, True]
    assert "\n" not in found[0].error


def test_bgr_arrays(predictor, image):
    bgr = cv2.imread(str(image))
    expected = predictor.predict_one(image, top_k=5, keep_images=True)
    found = predictor.predict_one(bgr, channels="bgr", top_k=5, keep_images=True)
    assert found.top == expected.top and (found.image == expected.image).all()
    assert predictor.predict_one(bgr, top_k=5).top != expected.top
    # Only arrays have an order of channels that pplc does not know.
    assert [p.top for p in predictor.predict([image, bgr], channels="bgr", top_k=5)] == [expected.top] * 2
    assert predictor.predict_one(image.read_bytes(), channels="bgr", top_k=5).top == expected.top


def test_large_images_are_not_held_at_once(predictor, monkeypatch):
    """Of sources that hold their bytes, as those of archives do, only a bounded number waits."""
    monkeypatch.setattr(module, "FEW_BYTES", 40_000)
    pixels = np.zeros((100, 100, 3), np.uint8)  # 30 kB
    taken = 0

    def sources():
        nonlocal taken
        for number in range(12):
            taken += 1
            yield Source(str(number), pixels=pixels + number)

    assert len(module._first(sources(), 17)) == 2 == taken
    found = list(predictor.predict(sources()))
    assert [p.path for p in found] == [str(number) for number in range(12)] and not any(p.error for p in found)
    assert MAX_BYTES <= 256 << 20


def test_an_image_without_memory_does_not_end_the_others(predictor, image):
    class Huge(type(Image.new("RGB", (1, 1)))):
        """An image whose pixels do not fit into memory."""

        def load(self):
            raise MemoryError

    found = list(predictor.predict([Huge(), image]))
    assert "memory" in found[0].error and found[1].error is None
