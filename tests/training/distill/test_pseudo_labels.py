"""Pseudo-labels: lists of confident predictions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from helpers.images import random_image, write_image
from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.config.load import check_config
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import read_extra, read_labels, require_part
from pplc_cli.training.distill.pseudo_labels import pseudo_label
from pplc_cli.training.distill.teacher import open_teacher


@pytest.fixture
def loose(trained, tmp_path):
    """Images like those of the run, images between its two classes, some of its own, and files that are no images."""
    folder = tmp_path / "new 新"
    for number in range(40):
        image = random_image(7000 + number) // 2
        image[12:36, 12:36, 2 * (number % 2)] += np.uint8(100 * min(1, number / 20))
        write_image(folder / f"p {number:02d}.jpg", image)
    (folder / "deep").mkdir()
    for number, file in enumerate(sorted((trained.data / "dog").iterdir())[:6]):
        shutil.copy(file, folder / "deep" / f"known{number}.jpg")
    (folder / "junk.jpg").write_bytes(b"no image")
    write_image(folder / "two\nlines.jpg", random_image(1))
    return folder


def middle(image, zoom):
    height, width = (round(side / zoom) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def test_confident_images_are_listed_with_their_mean_over_views(trained, loose, tmp_path):
    output = tmp_path / "lists" / "extra.txt"
    output.parent.mkdir()
    found = pseudo_label(loose, [str(trained.run)], output, threshold=0.9, zooms=(1.0, 1.5))
    teacher = open_teacher(str(trained.run))
    expected = {}
    for file in sorted(loose.glob("p *.jpg")):
        views = [middle(read_image(file), zoom) for zoom in (1.0, 1.5)]
        batch = np.stack([teacher.prepare(np.ascontiguousarray(v)) for view in views for v in (view, view[:, ::-1])])
        mean = np.exp(teacher.predict(batch, teacher.normalize)[0]).mean(axis=0)
        expected[file] = int(mean.argmax()), float(mean.max())
    sure = {file: answer for file, answer in expected.items() if answer[1] >= 0.9}
    assert 5 < len(sure) < 40
    assert {one.path: one.label for one in found.kept} == {file: label for file, (label, _) in sure.items()}
    for one in found.kept:
        assert one.score == pytest.approx(
            expected[one.path][1], abs=1e-4
        )  # resizing a mirrored image rounds differently
    assert [one.score for one in found.kept] == sorted((one.score for one in found.kept), reverse=True)
    assert sum(found.counts()) + sum(found.unsure) == 40 and found.known == 6
    assert sorted(reason for _, reason in found.failed) == [
        "has a name that cannot be written to a list",
        "is not an image but text",
    ]
    report = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert [row["kept"] for row in report["classes"]] == found.counts() and output.with_suffix(".png").is_file()
    samples = read_extra(output, found.labels)
    assert [(sample.path.resolve(), sample.label) for sample in samples] == [(o.path, o.label) for o in found.kept]


def test_training_uses_the_list(trained, loose, pplc):
    done = pplc("label", str(loose), "--model", str(trained.run), "--threshold", "0.9", "--output", "sure.txt")
    assert "left out: 6 that are on the model's own lists" in done.stdout and "data.extra_list=sure.txt" in done.stdout
    data = check_config({"data": {"dir": str(trained.data)}}).data
    before = len(require_part(data, "train", read_labels(data)))
    more = len((pplc.cwd / "sure.txt").read_text(encoding="utf-8").splitlines())
    done = pplc(
        "train", *trained.args[:-2], "-o", "train.epochs=1", "-o", "data.extra_list=sure.txt", "--output", "run"
    )
    steps = [json.loads(line) for line in (pplc.cwd / "run" / "train_log.jsonl").read_text().splitlines()]
    assert more > 5 and steps[0]["steps"] == -(-(before + more) // 4)
    told = pplc("train", *trained.args[:-2], "-o", "data.extra_list=nowhere.txt", "--output", "x", check=False)
    assert told.returncode == 1 and "data.extra_list=nowhere.txt: no such file 'nowhere.txt'" in told.stderr


@pytest.mark.slow
def test_several_models_are_averaged_and_classes_are_capped(trained, calm, loose, tmp_path):
    both = pseudo_label(loose, [str(trained.run), str(calm.folder)], tmp_path / "x.txt", threshold=0.0, per_class=4)
    assert both.counts() == [4, 4] and sum(both.surplus) == 32 and not any(both.unsure)
    alone = [pseudo_label(loose, [str(m)], tmp_path / f"{i}.txt", threshold=0.0) for i, m in
             enumerate((trained.run, calm.folder))]  # fmt: skip
    scores = [{one.path: one.score if one.label == 0 else 1 - one.score for one in each.kept} for each in alone]
    for one in both.kept:
        mean = (scores[0][one.path] + scores[1][one.path]) / 2
        assert one.score == pytest.approx(max(mean, 1 - mean), abs=1e-5)


def test_why_images_cannot_be_labelled(trained, untrained, loose, tmp_path):
    def refused(message, folder, models, kind=TrainError):
        with pytest.raises(kind, match=message) as caught:
            pseudo_label(folder, models, tmp_path / "x.txt")
        assert "\n" not in str(caught.value) and not (tmp_path / "x.txt").exists()

    refused("have different classes", loose, [str(trained.run), str(untrained(0))])
    (tmp_path / "empty").mkdir()
    refused("holds no images", tmp_path / "empty", [str(trained.run)])
    refused("cannot be read", tmp_path / "nowhere", [str(trained.run)], PplcError)
    refused(r"empty: expected a run \(best_model/\)", loose, [str(tmp_path / "empty")])


def test_no_confident_image_is_reported(trained, pplc):
    write_image(pplc.cwd / "noise" / "x.png", random_image(7000) // 2)
    done = pplc("label", "noise", "--model", str(trained.run), "--threshold", "1", "--output", "sure.txt")
    assert "try a lower --threshold" in done.stdout and (pplc.cwd / "sure.txt").read_text() == ""


def test_classes_are_matched_by_name(trained, loose, tmp_path):
    """An additional class shifts the ids of the others."""
    output = tmp_path / "x.txt"
    found = pseudo_label(loose, [str(trained.run)], output, threshold=0.5)
    ids = {one.label for one in found.kept}
    assert ids == {0, 1}
    moved = read_extra(output, ["ant", *found.labels])
    assert [sample.label for sample in moved] == [one.label + 1 for one in found.kept]
    with pytest.raises(PplcError, match=r"has images of '猫 cat', which is not a class of the data set: dog, cow"):
        read_extra(output, ["dog", "cow"])


def test_the_lists_of_an_exported_folders_run_are_used_and_unchecked_models_are_named(
    trained, loose, tmp_path, untrained
):
    inside = pseudo_label(loose, [str(trained.run / "inference_model")], tmp_path / "x.txt")
    assert inside.known == 6 and not inside.unchecked
    alone = pseudo_label(loose, [str(untrained(0))], tmp_path / "y.txt", threshold=0.0)
    assert alone.known == 0 and alone.unchecked == [str(untrained(0))]


def test_wrong_outputs_are_refused_at_once(trained, loose, tmp_path, pplc):
    for output in (tmp_path / "x.json", tmp_path, tmp_path / "nowhere" / "x.txt"):
        with pytest.raises(TrainError, match="expected a file in an existing folder"):
            pseudo_label(loose, [str(trained.run)], output)
    done = pplc("label", str(loose), "--model", str(trained.run / "inference_model"), check=False)
    assert done.returncode == 2 and "--output: expected a file" in done.stderr
