"""Preprocessing for engines: the resize equals OpenCV's, and uint8 and float32 inputs give equal outputs."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.images import random_image
from pplc_cli.base.errors import ImageError, PredictError
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.kernels.infer.int8_ranges import measure_activation_ranges
from pplc_cli.kernels.infer.resize import crop_of_resized, matches_opencv
from pplc_cli.predict.engines.pplc import PplcEngine
from pplc_cli.predict.predictor import Predictor
from pplc_cli.predict.preprocess import FloatInput, ImageInput, Uint8Input, input_for

sides = st.one_of(st.integers(1, 24), st.integers(1, 400))


def test_the_installed_opencv_resizes_like_this():
    assert matches_opencv()


@given(rows=sides, columns=sides, height=sides, width=sides, seed=st.integers(0, 2**32 - 1), mirrored=st.booleans())
@settings(max_examples=500, deadline=None)
def test_a_crop_of_a_resized_image_equals_opencv(rows, columns, height, width, seed, mirrored):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (rows, columns, 3), np.uint8)
    image = image[:, ::-1] if mirrored else image
    top, left = (int(rng.integers(side)) for side in (height, width))
    h, w = int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))
    memory = np.full((h * w * 3 + 64,), 7, np.uint8)
    out = memory[32:-32].reshape(h, w, 3)
    crop_of_resized(image, (height, width), (top, left), out)
    whole = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(out, whole[top : top + h, left : left + w])
    assert (memory[:32] == 7).all() and (memory[-32:] == 7).all()


def test_half_the_size_equals_opencv():
    image = random_image(1, (64, 90))
    out = np.empty((32, 45, 3), np.uint8)
    crop_of_resized(image, (32, 45), (0, 0), out)
    assert np.array_equal(out, cv2.resize(image, (45, 32), interpolation=cv2.INTER_LINEAR))


GUARDED = """
import ctypes, mmap
import numpy as np
from pplc_cli.kernels.infer.resize import crop_of_resized
page, rng = mmap.PAGESIZE, np.random.default_rng(0)
memory = mmap.mmap(-1, 64 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for first in (0, 63):
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + first * page), page, 0) == 0
for _ in range(300):
    rows, columns, height, width = map(int, rng.integers(1, 120, 4))
    size = rows * columns * 3
    for begin in (page, 63 * page - size):
        image = np.frombuffer(memory, np.uint8, size, begin).reshape(rows, columns, 3)
        crop_of_resized(image, (height, width), (0, 0), np.empty((height, width, 3), np.uint8))
print("done")
"""


def test_no_memory_beside_an_image_is_read():
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


TRANSFORMS = {
    "short side and crop": [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}],
    "at most so long": [{"ResizeByShort": {"short_size": 40, "max_size": 44}}, {"CenterCrop": {"crop_size": 32}}],
    "resize": [{"Resize": {"target_size": [32, 32]}}],
    "area": [{"ResizeByShort": {"short_size": 36, "interp": "AREA"}}, {"CenterCrop": {"crop_size": 32}}],
    "padding": [{"ResizeByLong": {"long_size": 32}}, {"Padding": {"target_size": 32}}],
    "crop alone": [{"CenterCrop": {"crop_size": 32}}],
}
NORMALIZE = {"mean": [0.1, 0.5, 0.3], "std": [0.3, 0.2, 0.7], "max_val": [255, 200, 128], "min_val": [0, 3, 1]}


@pytest.fixture(scope="module")
def graph(untrained):
    return simplify(read_paddle(untrained(0)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize("normalize", ["Normalize", {"Normalize": NORMALIZE}], ids=["usual", "other"])
def test_uint8_inputs_give_the_outputs_of_floats(graph, transforms, normalize, precision):
    pipeline = Pipeline([*TRANSFORMS[transforms], normalize], training=False)
    images = [random_image(seed, size) for seed, size in enumerate([(40, 60), (61, 47), (32, 32), (64, 64), (33, 200)])]
    floats, pixels = FloatInput(pipeline), Uint8Input(pipeline)
    one, other = floats.empty(5), pixels.empty(5)
    for number, image in enumerate(images):
        try:
            floats.write(image, one, number)
        except ImageError as error:
            with pytest.raises(ImageError, match=str(error)):
                pixels.write(image, other, number)
        else:
            pixels.write(image, other, number)
    filled = [number for number in range(5) if one[number].any()]
    assert len(filled) >= 3
    one, other = one[filled], other[filled]
    for threads in (1, 2):
        try:
            engine = PplcEngine(
                graph, precision=precision, threads=threads, activation_ranges=measure_activation_ranges(graph, one)
            )
        except PredictError as error:
            pytest.skip(str(error))
        expected = floats.run(engine, one, len(one))
        assert np.array_equal(pixels.run(engine, other, len(other)), expected) and np.ptp(expected) > 0.05


class ColourEngine:
    """An engine with its own preprocessing: the mean of each channel."""

    name, precision, threads, outputs = "colour", "float32", 1, 3

    def run(self, images):
        raise NotImplementedError

    def run_images(self, images):
        return np.stack([image.mean((0, 1)) for image in images]).astype(np.float32)

    def single(self):
        return self


def test_engines_with_preprocessing_get_decoded_images():
    pipeline = Pipeline([*TRANSFORMS["resize"], "Normalize"], training=False)
    engine_input = input_for(ColourEngine(), pipeline)
    assert isinstance(engine_input, ImageInput)
    images = [random_image(seed, (20 + seed, 30)) for seed in range(4)]
    batch = engine_input.empty(5)
    for index, image in enumerate(images):
        engine_input.write(image, batch, index)
    assert all(given is image for given, image in zip(batch, images))  # no copies
    assert np.array_equal(engine_input.run(ColourEngine(), batch, 3), ColourEngine().run_images(images[:3]))


@pytest.mark.parametrize("many", [False, True])
def test_such_engines_get_no_unusable_images(untrained, many):
    predictor = Predictor(untrained(0), engine="pplc", workers=2)
    predictor.engine, predictor.input = ColourEngine(), ImageInput()
    predictor.labels = ["red", "green", "blue"]
    images = [np.full((9, 8, 3), np.eye(3)[i % 3] * 200, np.uint8) if i % 4 else b"bad" for i in range(13)]
    found = [p.label for p in predictor.predict(images, many=many)]
    assert found == [predictor.labels[i % 3] if i % 4 else None for i in range(13)]


def test_the_cheapest_input_is_chosen(graph):
    pipeline = Pipeline([*TRANSFORMS["resize"], "Normalize"], training=False)
    assert isinstance(input_for(PplcEngine(graph), pipeline), Uint8Input)
    normalized_first = Pipeline(["Normalize", {"CenterCrop": {"crop_size": 32}}], training=False)
    assert isinstance(input_for(PplcEngine(graph), normalized_first), FloatInput)


def test_images_of_another_size_are_refused_in_one_line(graph):
    (*_, normalize) = Pipeline([*TRANSFORMS["resize"], "Normalize"], training=False).sample
    with pytest.raises(PredictError, match=r"expected images \(N, 3, 32, 32\), got \(2, 3, 32, 40\)"):
        PplcEngine(graph).run_pixels(np.zeros((2, 32, 40, 3), np.uint8), normalize)
