"""Splitting a data set: exact shares, reproducible, no leaks between parts, every unused file reported."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bad_files import write_bad_files
from helpers.images import random_image, write_image
from pplc_cli.base.errors import DataError
from pplc_cli.data.lists import read_labels, read_part
from pplc_cli.data.lists.assign import CheckedImage, assign_parts, group_images
from pplc_cli.data.lists.parts import PARTS
from pplc_cli.data.lists.tables import Columns
from pplc_cli.data.settings import DataConfig, SplitConfig
from pplc_cli.data.split import split_dataset

Maker = Callable[..., Path]


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user can read; pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def lists(root: Path) -> dict[str, bytes]:
    """The text files beside the class folders."""
    return {path.name: path.read_bytes() for path in root.glob("*.txt")}


def rows(root: Path) -> dict[str, list[tuple[str, int]]]:
    """Map each part to its (name, id) pairs, as the reader returns them."""
    data = DataConfig(dir=str(root))
    labels = read_labels(data)
    return {part: [(s.name, s.label) for s in read_part(data, part, labels) or []] for part in PARTS}


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.1), (0.29, 0.0), (0.25, 0.25), (0.5, 0.3)])
def test_counts_are_exact(class_folders: Maker, val: float, test: float) -> None:
    totals = (10, 23, 17)
    root = class_folders(totals, names=("a", "b", "c"), size=12)
    report = split_dataset(root, SplitConfig(val=val, test=test))
    shares = {"val": [int(n * val + 1e-9) for n in totals], "test": [int(n * test + 1e-9) for n in totals]}
    shares["train"] = [n - a - b for n, a, b in zip(totals, shares["val"], shares["test"])]
    assert report.counts == shares
    found = rows(root)
    assert {part: [sum(i == k for _, i in found[part]) for k in range(3)] for part in PARTS} == shares
    assert (root / "test_list.txt").exists() == (test > 0)


def test_share_without_rounding_error(class_folders: Maker) -> None:
    root = class_folders((100, 100), size=8)
    assert split_dataset(root, SplitConfig(val=0.29, test=0.07)).counts["val"] == [29, 29]


def test_every_path_once_with_its_id(class_folders: Maker) -> None:
    root = class_folders((12, 11, 10), size=12)
    report = split_dataset(root)
    assert report.labels == ["cross", "disc", "stripe"] == read_labels(DataConfig(dir=str(root)))
    every = [row for part in rows(root).values() for row in part]
    files = {path.relative_to(root).as_posix() for path in root.glob("*/*")}
    assert len(every) == len({name for name, _ in every}) == 33 and {name for name, _ in every} == files
    assert all(name.split("/")[0] == report.labels[label] for name, label in every)
    assert (report.left_out, report.notes, report.duplicates, report.conflicts) == ({}, {}, 0, [])


def test_order_of_the_file_system_does_not_matter(class_folders: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders((15, 12), size=12)
    split_dataset(root)
    first = lists(root)
    other = root.parent / "other"
    for path in sorted(root.glob("*/*"), reverse=True):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name)
    forwards = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(forwards(self), reverse=True)))
    split_dataset(other)
    assert lists(other) == first


def test_the_seed_changes_the_lists(class_folders: Maker) -> None:
    root = class_folders((15, 12), size=12)
    split_dataset(root, SplitConfig(seed=1))
    first = lists(root)
    split_dataset(root, SplitConfig(seed=2), force=True)
    second = lists(root)
    split_dataset(root, SplitConfig(seed=1), force=True)
    assert lists(root) == first != second


def test_existing_split_is_kept(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    split_dataset(root)
    before = lists(root)
    with pytest.raises(DataError, match="--force"):
        split_dataset(root, SplitConfig(seed=5, format="paddlex3"))
    assert lists(root) == before


def test_force_replaces_the_other_format(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    split_dataset(root)
    report = split_dataset(root, SplitConfig(format="paddlex3", test=0), force=True)
    assert set(lists(root)) == {"label.txt", "train.txt", "val.txt"} == {path.name for path in report.files}
    assert (root / "label.txt").read_text() == "0 disc\n1 stripe\n"
    split_dataset(root, force=True)
    assert set(lists(root)) == {"labels.txt", "train_list.txt", "val_list.txt", "test_list.txt"}
    assert (root / "labels.txt").read_text() == "disc\nstripe\n"


def test_failed_force_keeps_the_old_lists(class_folders: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders((10, 10), size=12)
    split_dataset(root)
    before = lists(root)
    (root / "disc" / "disc_000.jpg").write_bytes(b"broken")
    shutil.copytree(root / "disc", root / "few")
    for path in sorted((root / "few").iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError):
        split_dataset(root, force=True)
    assert lists(root) == before


def test_odd_names_come_back(class_folders: Maker) -> None:
    root = class_folders((10, 10), names=("大 熊猫", "虎（东北）"), folder="数据 集", size=12)
    for index in range(5):
        write_image(root / "大 熊猫" / f"照片 {index} 1.JpEg", random_image(500 + index, (12, 12)))
    (root / "虎（东北）" / "sub dir").mkdir()
    write_image(root / "虎（东北）" / "sub dir" / "x.PNG", random_image(600, (12, 12)))
    report = split_dataset(root)
    assert report.labels == ["大 熊猫", "虎（东北）"]
    data = DataConfig(dir=str(root))
    samples = [sample for part in PARTS for sample in read_part(data, part, report.labels) or []]
    assert len(samples) == 26 and all(sample.path.is_file() for sample in samples)
    assert all(sample.path.relative_to(root).parts[0] == report.labels[sample.label] for sample in samples)


@pytest.mark.parametrize("counts", [(10, 1), (10, 4)])
def test_class_with_too_few_images(class_folders: Maker, counts: tuple[int, int]) -> None:
    root = class_folders(counts, size=12)
    with pytest.raises(DataError, match=r"'stripe' would get no validation image: it has \d.*Nothing was written"):
        split_dataset(root)
    assert lists(root) == {}


def test_class_without_a_training_image(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    for path in (root / "stripe").iterdir():
        path.write_bytes((root / "stripe" / "stripe_000.jpg").read_bytes())
    with pytest.raises(DataError, match="'stripe' would get no"):
        split_dataset(root)
    assert lists(root) == {}


def test_empty_class(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    (root / "nothing").mkdir()
    with pytest.raises(DataError, match=r"nothing: the class has no usable training image; add images"):
        split_dataset(root)
    (root / "nothing" / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"nothing/x\.jpg is empty"):
        split_dataset(root)
    assert lists(root) == {}


def test_no_classes(tmp_path: Path, class_folders: Maker) -> None:
    with pytest.raises(DataError, match="no such folder"):
        split_dataset(tmp_path / "missing")
    with pytest.raises(DataError, match="has no subfolders"):
        split_dataset(tmp_path)
    with pytest.raises(DataError, match="only one class folder, 'disc'"):
        split_dataset(class_folders((5,), size=12))


@pytest.mark.parametrize("group", ["(", "a{99999999999999999999}"])
def test_group_that_is_not_an_expression(class_folders: Maker, group: str) -> None:
    with pytest.raises(DataError, match="not a valid regular expression"):
        split_dataset(class_folders((10, 10), size=12), SplitConfig(group=group))


@pytest.mark.filterwarnings("ignore::Warning:PIL.TiffImagePlugin")
def test_every_bad_file_is_named(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    kinds = write_bad_files(root / "disc")
    shutil.copy(root / "disc" / "grey.jpg", root / "disc" / "image.txt")
    (root / "disc" / "readme.md").write_text("about")
    (root / "disc" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    write_image(root / "beside.png", random_image(1))
    seen: list[tuple[int, Optional[int]]] = []
    report = split_dataset(root, progress=lambda done, total: seen.append((done, total)))
    bad = {f"disc/{name}" for name, kind in kinds.items() if kind == "bad"}
    assert set(report.left_out) == bad | {"disc/image.txt", "disc/readme.md", "disc/IMG_1.HEIC", "beside.png"}
    assert all(reason.strip() and "\n" not in reason for reason in report.left_out.values())
    assert "HEIC" in report.left_out["disc/IMG_1.HEIC"]
    assert report.left_out["disc/readme.md"] == "is not an image: its suffix is .md"
    assert "rename" in report.left_out["disc/image.txt"]
    listed = {name for part in rows(root).values() for name, _ in part}
    assert {f"disc/{name}" for name, kind in kinds.items() if kind == "odd"} <= listed and not listed & bad
    assert "PNG file in spite of its suffix" in report.notes["disc/really_png.jpg"]
    assert "JPEG file in spite of its suffix" in report.notes["disc/really_jpeg.png"]
    assert "frames" in report.notes["disc/animated.gif"] and "1 x 1" in report.notes["disc/one_pixel.png"]
    assert "suffix" not in report.notes["disc/two_pictures.jpg"]
    assert seen[-1] == (len(seen), len(seen))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_a_list_cannot_contain(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    data = (root / "disc" / "disc_000.jpg").read_bytes()
    made = [b"disc/a\nb.jpg", b"disc/a\tb.jpg"]
    for name in [*made, b"disc/\xff.jpg"]:
        try:
            Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(data)
        except OSError:
            continue
        made += [name] * (name not in made)
    report = split_dataset(root)
    assert len(report.left_out) == len(made)
    assert all("a list cannot contain" in reason for reason in report.left_out.values())
    "".join(report.left_out).encode("utf-8")
    assert sum(map(sum, report.counts.values())) == 20


def test_copies_stay_in_one_part_and_conflicts_are_reported(class_folders: Maker) -> None:
    root = class_folders((20, 20), size=12)
    for index in range(6):
        shutil.copy(
            root / "disc" / f"disc_00{index}.{'jpg' if index % 2 == 0 else 'png'}", root / "disc" / f"copy{index}.jpg"
        )
    shutil.copy(root / "disc" / "disc_010.jpg", root / "stripe" / "wrong.jpg")
    report = split_dataset(root)
    assert report.duplicates == 7 and report.conflicts == [("disc/disc_010.jpg", "stripe/wrong.jpg")]
    side: dict[str, set[str]] = {}
    for part, members in rows(root).items():
        for name, _ in members:
            side.setdefault(hashlib.sha256((root / name).read_bytes()).hexdigest(), set()).add(part)
    assert len(side) == 40 and all(len(parts) == 1 for parts in side.values())


def test_groups_stay_together(class_folders: Maker) -> None:
    root = class_folders((0, 0))
    for label, name in enumerate(("a", "b")):
        for animal in range(8):
            for shot in range(3):
                write_image(
                    root / name / f"id{animal}_{shot}.png", random_image(label * 100 + animal * 9 + shot, (12, 12))
                )
    report = split_dataset(root, SplitConfig(val=0.25, test=0.13, group=r"(\w/id\d+)_"))
    side: dict[str, set[str]] = {}
    for part, members in rows(root).items():
        for name, _ in members:
            side.setdefault(name.split("_")[0], set()).add(part)
    assert len(side) == 16 and all(len(parts) == 1 for parts in side.values())
    assert report.counts == {"train": [15, 15], "val": [6, 6], "test": [3, 3]}


def test_optional_group_without_a_match_binds_nothing() -> None:
    images = [CheckedImage(f"a/{i}.jpg", 0, str(i)) for i in range(4)]
    assert len(group_images(images, re.compile(r"/\d(_id\d)?"))) == 4


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=60), st.data()
)
@settings(max_examples=200, deadline=None)
def test_no_component_is_divided(layout: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """``layout`` holds class, content id and group id of each image; group 0 means none."""
    images = [
        CheckedImage(f"c{label}/{i}_{f'g{group}' if group else 'alone'}.jpg", label, str(content))
        for i, (label, content, group) in enumerate(layout)
    ]
    config = SplitConfig(
        val=data.draw(st.sampled_from([0.1, 0.2, 0.5])),
        test=data.draw(st.sampled_from([0.0, 0.1, 0.3])),
        seed=data.draw(st.integers(0, 3)),
    )
    components = group_images(images, re.compile(r"_(g\d)"))
    try:
        parts = assign_parts(components, ["c0", "c1", "c2"], config)
    except DataError as error:
        assert "Nothing was written" in str(error)
        return
    placed = {image.name: part for part, members in parts.items() for image in members}
    assert sorted(placed) == sorted(image.name for image in images)
    assert sum(map(len, parts.values())) == len(images)
    for field in (lambda i: ("content", layout[i][1]), lambda i: ("group", layout[i][2] or -i - 1)):
        sides: dict[tuple[str, int], set[str]] = {}
        for i, member in enumerate(images):
            sides.setdefault(field(i), set()).add(placed[member.name])
        assert all(len(found) == 1 for found in sides.values())
    backwards = assign_parts(group_images(images[::-1], re.compile(r"_(g\d)")), ["c0", "c1", "c2"], config)
    assert {p.name: part for part, members in backwards.items() for p in members} == placed


def test_parts_are_kept_and_missing_ones_are_cut_from_train(class_folders: Maker) -> None:
    root = class_folders((20, 20), folder="set/Images/Training")
    class_folders((5, 4), folder="set/Images/valid", size=40)
    root = root.parent.parent
    report = split_dataset(root)
    assert report.labels == ["disc", "stripe"]
    assert report.parts == {"train": ["Images/Training"], "val": ["Images/valid"]}
    assert report.counts == {"train": [18, 18], "val": [5, 4], "test": [2, 2]}
    for part, members in rows(root).items():
        folder = "valid" if part == "val" else "Training"
        assert all(name.startswith(f"Images/{folder}/{report.labels[label]}/") for name, label in members)
    assert report.leaks == [] and report.duplicates == 0


def test_all_parts_are_kept_as_they_are(class_folders: Maker) -> None:
    for part, count, size in (("train", 4, 16), ("val", 1, 20), ("test", 2, 24)):
        root = class_folders((count, count), folder=f"set/{part}", size=size).parent
    assert split_dataset(root).counts == {"train": [4, 4], "val": [1, 1], "test": [2, 2]}


def test_images_in_two_parts_are_reported(class_folders: Maker) -> None:
    root = class_folders((10, 10), folder="set/train").parent
    class_folders((3, 3), folder="set/val")
    report = split_dataset(root)
    assert len(report.leaks) == 6
    assert ("train/disc/disc_000.jpg", "val/disc/disc_000.jpg") in report.leaks


def test_a_class_of_a_part_without_usable_training_images(class_folders: Maker) -> None:
    root = class_folders((10, 1), folder="set/train").parent
    (root / "train" / "stripe" / "stripe_000.jpg").write_bytes(b"broken")
    class_folders((3, 3), folder="set/val", size=40)
    with pytest.raises(
        DataError, match=r"train.stripe: the class has no usable training image: train/stripe/stripe_000\.jpg"
    ):
        split_dataset(root)


def test_lists_go_elsewhere(class_folders: Maker, tmp_path: Path) -> None:
    root = class_folders((10, 10), size=12)
    report = split_dataset(root, lists=tmp_path / "lists" / "set")
    assert lists(root) == {} and len(lists(tmp_path / "lists" / "set")) == 4
    assert {path.parent for path in report.files} == {tmp_path / "lists" / "set"}
    with pytest.raises(DataError, match="has lists already"):
        split_dataset(root, lists=tmp_path / "lists" / "set")
    data = DataConfig(dir=str(root), lists=str(tmp_path / "lists" / "set"))
    samples = read_part(data, "train", read_labels(data)) or []
    assert len(samples) == 14 and all(sample.path.is_file() for sample in samples)


def test_lists_within_the_data_set_are_no_class(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    split_dataset(root, lists=root / "lists")
    assert split_dataset(root, lists=root / "lists", force=True).labels == ["disc", "stripe"]


def test_a_data_set_that_moved_needs_no_new_lists(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    split_dataset(root)
    moved = root.rename(root.parent / "elsewhere")
    data = DataConfig(dir=str(moved))
    assert all(sample.path.is_file() for sample in read_part(data, "val", read_labels(data)) or [])
    with pytest.raises(DataError, match=r"set: the folder of the data set is gone; if it was moved, add -o data\.dir="):
        read_part(DataConfig(dir=str(root)), "val", ["disc", "stripe"])


def test_a_table_names_the_classes(class_folders: Maker) -> None:
    root = class_folders((10, 10), folder="set/all", size=12).parent
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*_*.*"))
    table = root.parent / "classes.csv"
    lines = ["image,class", *(f"{file},round" if "disc" in file else f'{file},"long, thin"' for file in files)]
    table.write_text("\n".join([*lines, "all/gone.jpg,round"]), encoding="utf-8")
    report = split_dataset(root, SplitConfig(table=str(table)))
    assert report.labels == ["long, thin", "round"] and report.left_out == {"all/gone.jpg": "does not exist"}
    assert report.counts == {"train": [7, 7], "val": [2, 2], "test": [1, 1]}
    assert {name for members in rows(root).values() for name, _ in members} == set(files)
    with pytest.raises(DataError, match=r"columns 'path' and 'species', got 'image,class'"):
        split_dataset(root, SplitConfig(table=str(table)), columns=Columns(label="species"), force=True)


@pytest.mark.skipif(os.name == "nt", reason="needs a link")
def test_links_to_parents_are_not_followed(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    (root / "disc" / "up").symlink_to(root)
    (root / "stripe" / "self").symlink_to(root / "stripe")
    report = split_dataset(root)
    assert sum(map(sum, report.counts.values())) == 20 and report.conflicts == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
)
def test_another_user_without_rights(class_folders: Maker, readable: Path) -> None:
    root = class_folders((10, 10), size=12).rename(readable / "set")
    (root / "disc" / "disc_000.jpg").chmod(0o600)
    theirs = readable / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)

    def as_nobody(*words: str) -> str:
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*user, sys.executable, "-m", "pplc_cli", "split", "--dataset", str(root), *words]
        env = {**os.environ, "HOME": str(theirs)}
        done = subprocess.run(command, cwd=theirs, env=env, capture_output=True, text=True)
        return done.stdout + done.stderr

    refused = as_nobody()
    assert "cannot be written to: Permission denied; write the lists elsewhere: --lists lists/set" in refused
    assert "left out: disc/disc_000.jpg cannot be read: Permission denied" in as_nobody("--lists", "lists")
    (root / "disc").chmod(0o700)
    unreadable = as_nobody("--lists", "more")
    assert unreadable == f"Error: {root / 'disc'}: the folder cannot be read: Permission denied\n"


def test_a_table_may_name_the_parts(class_folders: Maker) -> None:
    root = class_folders((10, 10), size=12)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*_*.*"))
    rows_of = [f"{name},{name.split('/')[0]},{('Train', 'train', 'valid')[i % 3]}" for i, name in enumerate(files)]
    table = root.parent / "birds.csv"
    table.write_text("\n".join(["filepaths,labels,data set", *rows_of]))
    report = split_dataset(root, SplitConfig(table=str(table)))
    assert report.parts == {"train": [str(table)], "val": [str(table)]}
    assert report.counts == {"train": [7, 7], "val": [3, 3], "test": [0, 0]}
    assert {name for name, _ in rows(root)["val"]} == {name for i, name in enumerate(files) if i % 3 == 2}
    data = DataConfig(dir=str(root), train_list=str(table), val_list=str(table))
    assert [len(read_part(data, part, report.labels) or []) for part in ("train", "val")] == [14, 6]
