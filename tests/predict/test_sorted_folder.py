"""Image files are sorted into class folders: nothing is lost or overwritten, and the originals stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.predict.inputs.expand import expand
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.outputs.sorted_folder import SortedFolder
from pplc_cli.predict.prediction import Prediction

LABELS = ["dog", "../up", "a/b", "CON", "a:b", "unsure", "猫" * 100]


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    """Predictions of files with equal names, and of what cannot be sorted."""
    names = [f"{folder}/1.jpg" for folder in "abcd"] + ["e/2.JPG", "f/3.jpg", "g/4.jpg"]
    texts = ["one", "two", "one", "four", "five", "six", "seven"]
    paths = [write(tmp_path / "in" / name, text) for name, text in zip(names, texts)]
    labels = ["dog", "dog", "dog", "../up", "a/b", "CON", "猫" * 100]
    found = [Prediction(path, [(label, 0.9)]) for path, label in zip(paths, labels)]
    return [*found, Prediction(paths[0] + "x", error="is broken"), Prediction("x.tar/a.jpg", [("dog", 0.9)])]


EXPECTED = ["_.._up/1.jpg", "_CON/3.jpg", "a_b/2.JPG", "dog/1.jpg", "dog/1_2.jpg", f"{'猫' * 66}/4.jpg"]


@pytest.mark.parametrize("link", [False, True])
def test_files_are_sorted_and_stay_where_they_are(photos, tmp_path, link):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "in").rglob("*.*")}
    for _ in range(2):  # sorting again changes nothing
        folder = SortedFolder(tmp_path / "out", LABELS, link=link)
        for prediction in photos:
            folder.add(prediction)
        assert files_below(tmp_path / "out") == EXPECTED
        assert folder.left == 1 and folder.counts["dog"] == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "in").rglob("*.*")} == before
    assert (tmp_path / "out" / "dog" / "1_2.jpg").read_text() == "two"
    copied, original = tmp_path / "out" / "dog" / "1.jpg", tmp_path / "in" / "a" / "1.jpg"
    assert copied.samefile(original) == link and int(copied.stat().st_mtime) == int(original.stat().st_mtime)


def test_labels_with_the_same_folder_name_have_their_own(tmp_path):
    image = write(tmp_path / "1.jpg", "x")
    folder = SortedFolder(tmp_path / "out", LABELS, min_score=0.5)
    for label, score in (("a/b", 0.9), ("a:b", 0.9), ("unsure", 0.9), ("dog", 0.4)):
        folder.add(Prediction(image, [(label, score)]))
    assert files_below(tmp_path / "out") == ["a_b/1.jpg", "a_b_2/1.jpg", "unsure/1.jpg", "unsure_2/1.jpg"]


def test_a_file_of_the_user_is_not_overwritten(tmp_path):
    image = write(tmp_path / "1.jpg", "new")
    write(tmp_path / "out" / "dog" / "1.jpg", "old")
    (tmp_path / "out" / "dog" / "1_2.jpg").symlink_to("nowhere")
    SortedFolder(tmp_path / "out", LABELS).add(Prediction(image, [("dog", 1.0)]))
    assert (tmp_path / "out" / "dog" / "1.jpg").read_text() == "old"
    assert (tmp_path / "out" / "dog" / "1_3.jpg").read_text() == "new"


def test_links_across_file_systems_are_symbolic(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    image = other / f"pplc-test-{os.getpid()}.jpg"
    try:
        write(image, "x")
        for _ in range(2):
            SortedFolder(tmp_path / "out", LABELS, link=True).add(Prediction(str(image), [("dog", 1.0)]))
        (link,) = (tmp_path / "out" / "dog").iterdir()
        assert link.is_symlink() and link.read_text() == "x"
    finally:
        image.unlink()


def test_its_own_output_is_not_read(tmp_path):
    for name in ("a.jpg", "sub/b.jpg", "sorted/dog/c.jpg"):
        write(tmp_path / "in" / name, name)
    folder = SortedFolder(tmp_path / "in" / "sorted", LABELS)
    folder.check([str(tmp_path / "in"), "-", "http://host/x.jpg"])
    names = [Path(source.name).name for source in folder.outside(expand([str(tmp_path / "in")]))]
    assert names == ["a.jpg", "b.jpg"]
    assert list(folder.outside([Source("http://host/x.jpg")]))
    for inside in ("sorted", "sorted/dog", "sorted/dog/c.jpg", "sorted/*/*.jpg"):
        with pytest.raises(PredictError, match="the folder to sort into"):
            folder.check([str(tmp_path / "in" / inside)])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    image = write(tmp_path / "1.jpg", "x")
    with pytest.raises(PredictError, match="is a file; expected a folder"):
        SortedFolder(image, LABELS).check([])
    write(tmp_path / "out" / "dog", "a file where a folder belongs")
    with pytest.raises(PplcError, match=r"cannot sort .*1\.jpg into"):
        SortedFolder(tmp_path / "out", LABELS).add(Prediction(image, [("dog", 1.0)]))
