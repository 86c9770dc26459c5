"""What pplc predict prints and saves for people."""

from __future__ import annotations

import json
import re
import unicodedata

import cv2
import numpy as np
import pytest
import yaml

from helpers.images import random_image, write_image
from helpers.untrained import LABELS
from pplc_cli.cli.console.predictions import Tally
from pplc_cli.predict.outputs.annotated import AnnotatedFolder, draw
from pplc_cli.predict.prediction import Prediction

EVIL = "evil\x1b]0;title\x07\x9b2J\u202egpj\nline\r.jpg"


@pytest.fixture(scope="module")
def model(untrained, tmp_path_factory):
    """The network with labels that a terminal would act on."""
    folder = tmp_path_factory.mktemp("evil") / "model"
    folder.mkdir()
    for file in untrained(0).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    text = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))
    text["PostProcess"]["Topk"]["label_list"] = [f"{label}\x1b[31m\r\n\u202e" for label in LABELS]
    (folder / "inference.yml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return ["--model", str(folder), "--engine", "pplc"]


@pytest.fixture
def evil_folder(tmp_path):
    write_image(tmp_path / "photos" / "a" / "x.jpg", random_image(1))
    (tmp_path / "photos" / "a" / "x.jpg").rename(tmp_path / "photos" / "a" / EVIL)
    write_image(tmp_path / "photos" / "b" / "x.jpg", random_image(2))
    (tmp_path / "photos" / f"broken {EVIL}").write_text("no image")
    return tmp_path / "photos"


def harmless(text):
    active = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]
    return not active


def test_terminals_get_escaped_names(pplc, model, evil_folder):
    done = pplc("predict", *model, str(evil_folder), check=False)
    assert done.returncode == 1 and harmless(done.stdout) and harmless(done.stderr)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 1 + 4 and lines[2].startswith("3 images: ") and "1 could not be used" in lines[2]
    assert r"evil\x1b]0;title\x07\x9b2J\u202egpj\nline\r.jpg: " in lines[0]
    assert done.stderr.count("\n") == 1 and r"broken evil\x1b]0" in done.stderr
    recorded = pplc("predict", *model, str(evil_folder), "--output", "out.jsonl", check=False)
    assert harmless(recorded.stdout) and harmless(recorded.stderr) and "broken evil" in recorded.stderr
    missing = pplc("predict", *model, f"no\x1b[31mwhere\n{EVIL}*.jpg", check=False)
    assert harmless(missing.stderr) and "matches no file" in missing.stderr


def test_json_has_the_names_as_they_are(pplc, model, evil_folder):
    done = pplc("predict", *model, str(evil_folder), "--json", "--sort-into", "sorted", "--save", "drawn", check=False)
    first = json.loads(done.stdout.split("\n")[0])
    assert first["path"].endswith(EVIL) and "\x1b[31m\r\n\u202e" in first["label"]
    assert harmless(done.stderr)
    assert len(list((pplc.cwd / "sorted").rglob("*.jpg"))) == 2
    assert sorted(p.parent.name for p in (pplc.cwd / "drawn").rglob("*.jpg")) == ["a", "b"]
    assert all(harmless(str(p.relative_to(pplc.cwd))) for p in (pplc.cwd / "drawn").rglob("*"))


def test_split_prints_escaped_names(pplc, class_folders):
    folder = class_folders((12, 12))
    (next(folder.glob("*/*.jpg")).parent / EVIL).write_text("no image")
    done = pplc("split", "--dataset", str(folder))
    assert harmless(done.stdout) and r"evil\x1b]0;title" in done.stdout


def test_options_that_exclude_each_other(pplc, untrained):
    model = ["predict", "--model", str(untrained(0)), "x.jpg"]
    for options, message in (
        (["--json", "--csv"], "--json and --csv exclude each other"),
        (["--top-k", "0"], "Invalid value for '--top-k'"),
        (["--link"], "--link and --min-score need --sort-into"),
        (["--sort-into", "out", "--output", "x.csv", "--resume"], "--sort-into cannot be combined"),
    ):
        done = pplc(*model, *options, check=False)
        assert done.returncode == 2 and message in done.stderr, options
    assert not list(pplc.cwd.iterdir())


def test_sorting_from_the_command_line(pplc, untrained):
    for number in range(6):
        write_image(pplc.cwd / "photos" / f"{number}.jpg", random_image(number))
    (pplc.cwd / "photos" / "note.psd").write_bytes(b"x")
    arguments = ["predict", "--model", str(untrained(0)), "--engine", "pplc", "photos", "--sort-into", "photos/sorted"]
    for _ in range(2):
        done = pplc(*arguments)
        assert "6 images: " in done.stdout and "sorted into photos/sorted: " in done.stderr
        assert "skipped: 1 .psd (not image formats that pplc reads)" in done.stderr
        assert len([p for p in (pplc.cwd / "photos" / "sorted").rglob("*") if p.is_file()]) == 6
    assert pplc(*arguments, "--min-score", "1", "-q").stderr == "sorted into photos/sorted: 6 unsure\n"


def test_a_summary_counts_labels():
    tally = Tally()
    for number in range(30):
        tally.add(Prediction(str(number), [(f"class {number % 15 if number > 11 else 0}", 0.9)]))
    tally.add(Prediction("x", error="broken"))
    text = str(tally)
    assert re.match(r"31 images: 13 class 0, 2 class 12, 2 class 13, 2 class 14, 1 class 1, ", text), text
    assert text.endswith(", 5 of 5 other classes, 1 could not be used")


def test_subfolders_are_kept(tmp_path):
    image = np.zeros((60, 60, 3), np.uint8)

    def saved(argument, *paths):
        folder = AnnotatedFolder(tmp_path / "out", [str(argument)])
        found = [folder.save(Prediction(str(path), [("dog", 1.0)], image=image)) for path in paths]
        return [path.relative_to(tmp_path / "out").as_posix() for path in found]

    photos = tmp_path / "photos"
    photos.mkdir()
    found = saved(photos, photos / "a/1.jpg", photos / "b/1.jpg", photos / "b/1.png")
    assert found == ["a/1.jpg", "b/1.jpg", "b/1_2.jpg"]
    assert saved(photos / "*" / "*.jpg", photos / "a/1.jpg") == ["a/1.jpg"]
    archive = tmp_path / "x.tar"
    assert saved(archive, f"{archive}/sub/1.jpg", f"{archive}/../../2.jpg") == ["sub/1.jpg", "2.jpg"]
    assert saved(photos / "1.jpg", photos / "1.jpg") == ["1.jpg"]
    assert saved("http://host/a/b.png", "http://host/a/b.png") == ["b.jpg"]
    long = f"{'猫' * 82}.jpg"
    assert len(saved(photos, photos / long)[0].encode()) <= 255
    assert saved(photos, photos / "zero\0byte.jpg", photos / "CON.jpg") == ["zero_byte.jpg", "_CON.jpg"]


def test_a_long_label_keeps_its_score():
    image = np.zeros((120, 160, 3), np.uint8)
    drawn = [np.array(draw(Prediction("x", [("a very long label " * 9, s)], image=image))) for s in (0.9, 0.1)]
    assert drawn[0].shape == drawn[1].shape and (drawn[0] != drawn[1]).any()
    assert cv2.absdiff(*drawn)[:, :80].max() == 0  # only the end of the line differs
