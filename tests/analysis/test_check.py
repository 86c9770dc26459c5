"""The check of a whole data set: every kind of finding, on drawn pandas and tigers with planted faults."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from pplc_cli.analysis.check import (
    BLURRED,
    BRIGHT,
    CONFLICT,
    COPY,
    DARK,
    ELONGATED,
    FLAT,
    KINDS,
    LABEL,
    LEAK,
    SMALL,
    UNREADABLE,
    check_data,
)
from pplc_cli.base.errors import DataError
from pplc_cli.data.decode import read_image
from pplc_cli.data.pandatiger.draw import draw_dataset
from pplc_cli.data.settings import DataConfig


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))[1].tobytes())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A folder with one image of each fault, named by it."""
    root = tmp_path_factory.mktemp("data") / "有 faults"
    draw_dataset(root, images=60, seed=3)
    panda, tiger = root / "panda", root / "tiger"
    one, other = read_image(panda / "panda_0003.jpg"), read_image(tiger / "tiger_0005.jpg")
    shutil.copy(panda / "panda_0001.jpg", panda / "same.jpg")
    write(panda / "mirrored.png", cv2.resize(one[:, ::-1], None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
    shutil.copy(panda / "panda_0007.jpg", tiger / "conflict.jpg")
    shutil.move(str(tiger / "tiger_0009.jpg"), panda / "wrong.jpg")
    (panda / "broken.jpg").write_bytes((panda / "panda_0002.jpg").read_bytes()[:300])
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    dark = np.zeros((200, 200, 3), np.uint8)
    dark[60:100, 60:100] = noise[:40, :40]
    write(tiger / "dark.png", dark)
    write(tiger / "bright.png", 255 - dark)
    write(tiger / "flat.png", np.full((200, 200, 3), 120, np.uint8))
    write(tiger / "blurred.png", cv2.GaussianBlur(other, (0, 0), 25))
    write(tiger / "small.png", noise[:20, :24])
    write(tiger / "long.png", noise[:30, :190])
    return root


@pytest.fixture(scope="module")
def report(faulty):
    return check_data(faulty)


@pytest.mark.parametrize(
    "kind, file, other",
    [
        (COPY, "panda/same.jpg", "panda/panda_0001.jpg"),
        (CONFLICT, "tiger/conflict.jpg", "panda/panda_0007.jpg"),
        (LABEL, "panda/wrong.jpg", "tiger"),
        (DARK, "tiger/dark.png", ""),
        (BRIGHT, "tiger/bright.png", ""),
        (FLAT, "tiger/flat.png", ""),
        (BLURRED, "tiger/blurred.png", ""),
        (SMALL, "tiger/small.png", ""),
        (ELONGATED, "tiger/long.png", ""),
    ],
)
def test_planted_faults_are_found(report, kind, file, other):
    assert (file, other) in {(finding.file, finding.other) for finding in report.of_kind(kind)}


def test_a_mirrored_and_reduced_copy_is_found(report):
    pairs = {frozenset((finding.file, finding.other)) for finding in report.of_kind(COPY)}
    assert frozenset(("panda/mirrored.png", "panda/panda_0003.jpg")) in pairs


def test_unreadable_files_have_reasons(report):
    (found,) = report.of_kind(UNREADABLE)
    assert found.file == "panda/broken.jpg" and found.reason


def test_counts_and_order(report):
    assert report.labels == ["panda", "tiger"] and list(report.counts) == ["all"]
    assert report.counts["all"] == [64, 66]
    assert sum(report.kinds.values()) == 129  # all but the broken one
    order = [KINDS.index(finding.kind) for finding in report.findings]
    assert order == sorted(order)
    assert report.to_dict()["findings"][0]["kind"] == report.findings[0].kind


def test_a_copy_in_another_part_is_a_leak(tmp_path):
    draw_dataset(tmp_path / "data", images=8, seed=1)
    data = tmp_path / "data"
    shutil.copy(data / "panda" / "panda_0001.jpg", data / "panda" / "copy.jpg")
    rows = {"train": ["panda/panda_0001.jpg 0", "tiger/tiger_0001.jpg 1", "tiger/tiger_0002.jpg 1"],
            "val": ["panda/copy.jpg 0", "tiger/tiger_0003.jpg 1"]}  # fmt: skip
    for part, lines in rows.items():
        (data / f"{part}_list.txt").write_text("\n".join(lines))
    (data / "labels.txt").write_text("panda\ntiger\n")
    report = check_data(DataConfig(dir=str(data)))
    assert report.counts == {"train": [1, 2], "val": [1, 1]}
    (leak,) = report.of_kind(LEAK)
    assert (leak.file, leak.other) == ("panda/copy.jpg", "panda/panda_0001.jpg") and leak.value == 1


def test_progress_reaches_the_end(faulty):
    steps = []
    check_data(faulty, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(number, 130) for number in range(1, 131)]


def test_data_sets_without_classes_or_images(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        check_data(tmp_path / "missing")
    with pytest.raises(DataError, match="has no subfolders"):
        check_data(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="contains no image"):
        check_data(tmp_path / "empty")
    for name in ("a", "b"):
        (tmp_path / "empty" / name / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="no image that can be read"):
        check_data(tmp_path / "empty")


def test_one_image_per_class(tmp_path):
    for number, name in enumerate(("a", "b")):
        write(tmp_path / name / "x.png", np.random.default_rng(number).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    report = check_data(tmp_path)
    assert report.counts["all"] == [1, 1] and not report.of_kind(LABEL)
