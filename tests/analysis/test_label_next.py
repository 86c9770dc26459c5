"""What to label next."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from helpers.commands import Pplc
from helpers.images import random_image, write_image
from pplc_cli.analysis.label_next import choose, margins_of


def test_uncertain_images_of_different_groups_are_chosen():
    """Ten groups of embeddings; the images of five groups are certain."""
    rng = np.random.default_rng()
    centres = np.eye(10, 16)
    group = np.arange(200) % 10
    embeddings = centres[group] + 0.05 * rng.normal(size=(200, 16))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    sure = np.where(group < 5, 0.55, 1.0)
    chosen = choose(np.stack([sure, 1 - sure], axis=1), embeddings, 5)
    assert sorted(group[chosen]) == [0, 1, 2, 3, 4]
    assert sorted(choose(np.stack([sure, 1 - sure], axis=1), embeddings, 300)) == list(range(200))


def test_the_margin_is_that_of_the_two_best():
    rows = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [1 / 3] * 3])
    np.testing.assert_allclose(margins_of(rows), [0.2, 0.7, 0.0], atol=1e-12)
    assert margins_of(np.ones((3, 1))).tolist() == [1, 1, 1]


def test_the_table_is_filled_in_and_trained_on(trained, tmp_path):
    """Images of the run's own lists are left out; a table with the user's labels is never replaced."""
    pplc, place = Pplc(tmp_path), tmp_path / "more 图"
    for number in range(6):
        write_image(place / f"图 {number}.jpg", random_image(5000 + number))
    (place / "junk.jpg").write_text("no image", encoding="utf-8")
    known = next(trained.data.rglob("*.jpg"))
    (place / "known.jpg").write_bytes(known.read_bytes())
    options = ["label", "more 图", "--model", str(trained.run), "--next", "4", "--output", "next.csv"]
    done = pplc(*options)
    assert "left out: 1 that are on the model's own lists" in done.stdout and "junk.jpg" in done.stdout
    assert (tmp_path / "next.png").is_file()
    pplc(*options)  # an unlabelled table may be replaced
    with (tmp_path / "next.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and all((tmp_path / row["path"]).is_file() for row in rows)
    margins = [float(row["margin"]) for row in rows]
    assert margins == sorted(margins)
    for row in rows:
        row["label"] = "dog"
    with (tmp_path / "next.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    assert "has labels already" in pplc(*options, check=False).stderr
    args = [*trained.args[:-1], str(tmp_path / "again"), "-o", "train.epochs=1"]
    pplc("train", *args, "-o", f"data.extra_list={tmp_path / 'next.csv'}")


@pytest.mark.parametrize("files", [0, 1])
def test_nothing_to_label_is_one_clear_line(trained, tmp_path, files):
    (tmp_path / "empty").mkdir()
    for number in range(files):
        (tmp_path / "empty" / f"{number}.jpg").write_bytes(next(trained.data.rglob("*.jpg")).read_bytes())
    failed = Pplc(tmp_path)("label", "empty", "--model", str(trained.run), "--next", "3", check=False)
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1] == "Error: empty: holds no images that are not labelled yet"
