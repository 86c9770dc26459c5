"""Folds: how images are divided, what their networks predict, and resumption to the bit."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers.commands import Pplc
from helpers.folds import COUNT, Folded, probabilities
from helpers.runs import arrays, assert_same, start, wait_for_epoch
from pplc_cli.base.errors import CheckpointError, DataError, TrainError
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.run import Run
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.tuning.folds import assign_folds, read_folds, train_folds

Settings = Callable[..., Config]
Write = Callable[..., list[Sample]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes files of the given names, each with its own content or the given one."""

    def make(names: Sequence[str], labels: Sequence[int], contents: Sequence[str] = ()) -> list[Sample]:
        found = []
        for name, label, content in zip(names, labels, contents or names):
            (tmp_path / name).write_text(content, encoding="utf-8")
            found.append(Sample(tmp_path / name, int(label), name))
        return found

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with another seed in each test; pytest shows the seed of a failed test."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def names(classes: int) -> list[str]:
    return [f"class {label}" for label in range(classes)]


@pytest.mark.parametrize("trial", range(10))
def test_classes_are_spread_evenly(write, rng, trial):
    folds, classes = int(rng.integers(2, 8)), int(rng.integers(2, 6))
    labels = rng.permutation(np.repeat(np.arange(classes), rng.integers(folds, 30, classes)))
    found = assign_folds(write(list(map(str, range(len(labels)))), labels), names(classes), folds, None, trial)
    assert found.shape == labels.shape and found.dtype == np.int64
    for label in range(classes):
        counts = np.bincount(found[labels == label], minlength=folds)
        assert len(counts) == folds and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("group", [None, r"_(g\d+)", r"g\d+"])
def test_copies_and_groups_stay_together(write, rng, group):
    """Also a copy that belongs to another group joins both."""
    groups = [f"g{number}" for number in rng.integers(0, 20, 120)]
    files = [f"{index}_{name}.jpg" for index, name in enumerate(groups)]
    contents = [str(number) for number in range(120)]
    for one, other in rng.permutation(120)[:8].reshape(4, 2):  # few, so that at least 3 groups are left
        contents[one] = contents[other]
    samples = write(files, rng.permutation(np.arange(120) % 2), contents)
    found = assign_folds(samples, names(2), 3, group, 5)
    assert set(found.tolist()) == {0, 1, 2}
    for keys in [contents] if group is None else [contents, groups]:
        assert all(len({int(f) for f, key in zip(found, keys) if key == one}) == 1 for one in set(keys))
    together = len({(int(f), name) for f, name in zip(found, groups)}) == len(set(groups))
    assert together == (group is not None)


@pytest.mark.parametrize("group", [r"(g\d+)\.jpg$", r"[^_]+$"])
def test_a_group_may_be_at_the_end_of_the_name(write, group):
    groups = [f"g{index % 8}" for index in range(48)]
    files = [f"{index}_{name}.jpg" for index, name in enumerate(groups)]
    found = assign_folds(write(files, [index % 2 for index in range(48)]), names(2), 3, group, 0)
    assert len({(int(f), name) for f, name in zip(found, groups)}) == 8


def test_the_seed_alone_decides(write):
    samples = write([f"{index}" for index in range(60)], [index % 3 for index in range(60)])
    one = assign_folds(samples, names(3), 5, None, 7)
    assert np.array_equal(one, assign_folds(samples, names(3), 5, None, 7))
    for seed in (8, 2**63 - 1):  # the largest seed of a configuration
        assert not np.array_equal(one, assign_folds(samples, names(3), 5, None, seed))


def test_a_class_with_too_few_images_or_groups_is_named(write):
    samples = write(["a0", "a1", "a2", "b0", "b1", "b2"], [0, 0, 0, 1, 1, 1], ["1", "2", "3", "4", "5", "5"])
    with pytest.raises(DataError, match=r"class 'class 1' has 2 images, or groups.*3 folds need at least 3"):
        assign_folds(samples, names(2), 3, None, 0)
    with pytest.raises(DataError, match="class 'class 2' has 0 images"):
        assign_folds(samples, names(3), 2, None, 0)
    assert set(assign_folds(samples, names(2), 2, None, 0).tolist()) == {0, 1}


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_is_predicted_once_by_a_network_that_has_not_seen_it(folded: Folded):
    rows, labels = table(folded.folds / "out_of_fold.csv"), Run(folded.folds / "fold-1").labels
    listed = dict(folded.listed("train") + folded.listed("val"))
    assert sorted(row["path"] for row in rows) == sorted(listed)
    assert not {row["path"] for row in rows} & {name for name, _ in folded.listed("test")}
    for number, best in enumerate(folded.best(), 1):
        run = Run(best.parent)
        mine = [row for row in rows if int(row["fold"]) == number]
        # The lists that the network was trained with have all images, and this fold's for validation alone.
        train_names, val_names = (
            [row["path"] for row in table(Path(file))]
            for file in (run.config.data.train_list or "", run.config.data.val_list or "")
        )
        assert [row["path"] for row in mine] == val_names
        assert sorted(train_names + val_names) == sorted(listed)
        images = [folded.data / row["path"] for row in mine]
        expected = probabilities(best, images, run.config.eval.transforms)
        stored = np.load(run.folder / "out_of_fold.npy")
        # Sums in another order differ by 1e-6 in the logits, of which the largest are about 10.
        np.testing.assert_allclose(stored, expected, rtol=0, atol=2e-5)
        written = np.array([[float(row[label]) for label in labels] for row in mine])
        np.testing.assert_allclose(written, stored, rtol=5e-6, atol=0)  # six digits
        for row, stored_row in zip(mine, stored):
            assert row["label"] == labels[listed[row["path"]]] == Path(row["path"]).parent.name
            assert row["predicted"] == labels[int(stored_row.argmax())]


def test_the_figures_are_those_of_the_predictions(folded: Folded):
    rows = table(folded.folds / "out_of_fold.csv")
    right = [row["predicted"] == row["label"] for row in rows]
    by_fold = [
        [hit for row, hit in zip(rows, right) if int(row["fold"]) == number] for number in range(1, COUNT + 1)
    ]  # fmt: skip
    top1 = [sum(hits) / len(hits) for hits in by_fold]
    mean = math.fsum(top1) / COUNT
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in top1) / (COUNT - 1) / COUNT)
    plan = json.loads((folded.folds / "folds.json").read_text(encoding="utf-8"))
    result = read_folds(folded.folds)
    assert result.to_dict() == plan["result"] and plan["folds"] == len(result.runs) == COUNT
    assert result.top1 == pytest.approx(top1, abs=1e-12) and len(set(top1)) > 1
    assert result.mean == pytest.approx(mean, abs=1e-12)
    assert result.standard_error == pytest.approx(error, abs=1e-12)
    assert result.metrics["images"] == len(rows) and result.metrics["top1"] == pytest.approx(sum(right) / len(rows))
    assert f"{mean:.1%} ± {error:.1%}" in folded.printed
    for number, hits in enumerate(by_fold, 1):
        assert f"fold-{number} │ {len(hits):6} │ {top1[number - 1]:12.1%}" in folded.printed


def files_of(folder: Path) -> dict[Path, bytes]:
    """The content of all files in a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Notes(Reporter):
    """Keeps all remarks."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_folds_killed_and_resumed_give_the_same_bits(pplc: Pplc, settings: Settings):
    whole = train_folds(settings("whole", epochs=4), 2).folder
    text = yaml.safe_dump(settings("cut", epochs=4).to_dict(), allow_unicode=True)
    (pplc.cwd / "cut.yaml").write_text(text, encoding="utf-8")
    cut = pplc.cwd / "cut"
    process = start(pplc.cwd, "cut.yaml", "--folds", "2")
    wait_for_epoch(cut / "fold-2", 1, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (cut / "fold-1" / "out_of_fold.npy").exists() and not (cut / "fold-2" / "out_of_fold.npy").exists()
    epoch = load_info(cut / "fold-2" / "last", "model")["epoch"]
    assert 1 <= epoch < 4
    reporter = Notes()
    train_folds(settings("cut", epochs=4), 2, resume=True, reporter=reporter)
    assert {"resuming after epoch 4", f"resuming after epoch {epoch}"} <= set(reporter.texts)
    assert_same_folds(whole, cut, 2, 4)


@pytest.mark.slow
def test_twenty_kills_lose_and_double_no_fold(pplc: Pplc, settings: Settings):
    epochs = 200
    (pplc.cwd / "cut.yaml").write_text(yaml.safe_dump(settings("cut", epochs=epochs).to_dict()), encoding="utf-8")
    words = ["cut.yaml", "--folds", "3"]
    began = time.monotonic()
    pplc("train", *words, "--epochs", "1", "--output", "one")
    start_up = time.monotonic() - began
    began = time.monotonic()
    train_folds(settings("whole", epochs=epochs), 3)
    twentieth = (time.monotonic() - began) / 20
    seed = int(os.environ.get("PPLC_KILL_SEED", time.time()))
    print(f"PPLC_KILL_SEED={seed}")
    draw, reached = random.Random(seed), []
    for _ in range(20):
        process = start(pplc.cwd, *words, "--resume")
        time.sleep(draw.uniform(0.3 * start_up, start_up + twentieth))
        assert process.poll() is None, "the folds ended before they could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        reached.append([len(RunFolder(fold).epochs()) for fold in sorted((pplc.cwd / "cut").glob("fold-*"))])
    print(f"20 kills, after epochs {reached}")
    assert len(reached[-1]) > 1  # not all kills came in the first fold
    pplc("train", *words, "--resume")
    assert_same_folds(pplc.cwd / "whole", pplc.cwd / "cut", 3, epochs)


def assert_same_folds(whole: Path, cut: Path, folds: int, epochs: int) -> None:
    """Compare the folds of two trainings to the bit."""
    for fold in [f"fold-{number}" for number in range(1, folds + 1)]:
        for file in ("out_of_fold.npy", "best_model/model.safetensors"):
            assert (whole / fold / file).read_bytes() == (cut / fold / file).read_bytes()
        assert_same(arrays(whole / fold / "last"), arrays(cut / fold / "last"))
        assert [record["epoch"] for record in RunFolder(cut / fold).epochs()] == list(range(1, epochs + 1))
    assert (cut / "out_of_fold.csv").read_bytes() == (whole / "out_of_fold.csv").read_bytes()


def test_finished_folds_are_safe(folded: Folded):
    before = files_of(folded.folds)
    pplc, words = Pplc(folded.folder), [*folded.args, "--output", str(folded.folds)]
    for more, fault in (
        (["--folds", str(COUNT)], "already holds a run: continue it with --resume, replace it with --force"),
        (["--folds", "2", "--resume"], f"cannot be resumed: it has {COUNT} folds"),
    ):
        done = pplc("train", *words, *more, check=False)
        assert done.returncode == 1 and fault in done.stderr and len(done.stderr.splitlines()) == 1
    assert files_of(folded.folds) == before


def test_folds_resumed_for_more_epochs_predict_with_the_new_weights(settings: Settings):
    train_folds(settings(), 2)
    before = [np.load(run.folder / "out_of_fold.npy") for run in read_folds(settings().output).runs]
    result = train_folds(settings(epochs=6), 2, resume=True)
    # With constant rates and no warm-up, the first epoch of a network with batch norm is not its best one.
    assert any(load_info(run.best, "model")["epoch"] > 1 for run in result.runs)
    for number, (run, old) in enumerate(zip(result.runs, before), 1):
        images = [s.path for s, held in zip(result.samples, result.held_out_of) if held == number]
        expected = probabilities(run.best, images, run.config.eval.transforms)
        np.testing.assert_allclose(np.load(run.folder / "out_of_fold.npy"), expected, rtol=0, atol=2e-5)
        assert load_info(run.best, "model")["epoch"] == 1 or np.abs(expected - old).max() > 1e-3


def test_folds_are_replaced_only_by_ones_that_start(settings: Settings, pplc: Pplc):
    train_folds(settings(), 2)
    before = files_of(pplc.cwd / "run")
    with pytest.raises(TrainError, match="has no stage 'blocks9'"):
        train_folds(settings(freeze="blocks9"), 2, force=True)
    assert before.items() <= files_of(pplc.cwd / "run").items()


def test_folds_of_tables_without_a_label_file(settings: Settings, pplc: Pplc):
    folder = Path(settings().data.dir)
    images = {name: sorted((folder / name).iterdir()) for name in ("disc", "stripe")}
    for part, chosen in (("train", slice(0, 6)), ("val", slice(6, 9)), ("test", slice(9, 12))):
        rows = [f"{path.relative_to(folder).as_posix()},{name}" for name in images for path in images[name][chosen]]
        (folder / f"{part}.csv").write_text("\n".join(["picture,kind", *rows, ""]), encoding="utf-8")
    (folder / "labels.txt").unlink()
    data = {f"data.{part}_list": str(folder / f"{part}.csv") for part in ("train", "val", "test")}
    columns = {"data.path_column": "picture", "data.label_column": "kind"}
    result = train_folds(check_config(settings().to_dict(), {**data, **columns}), 2)
    assert len(result.samples) == 18 and result.labels == ["disc", "stripe"]


def test_moved_folds_are_read(settings: Settings, pplc: Pplc):
    before = train_folds(settings(), 2)
    shutil.move(str(pplc.cwd / "run"), str(pplc.cwd / "moved"))
    after = read_folds(pplc.cwd / "moved")
    assert after.top1 == before.top1 and after.samples == before.samples


def test_folds_have_one_batch_size(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    from pplc_cli.training.step import batch_size  # loads Paddle

    seconds = iter([0.2, 0.1, 0.1, 0.2])  # of batches of 4 and 8, first a quick machine and then a busy one
    monkeypatch.setattr(batch_size, "SIZES", (4, 8))
    monkeypatch.setattr(batch_size, "LEAST_STEPS", 1)
    monkeypatch.setattr(batch_size, "_seconds_per_image", lambda *_: next(seconds))
    first, second = train_folds(settings(batch_size="auto"), 2).runs
    assert first.config.train == second.config.train


def test_a_folder_with_a_run_or_damaged_folds_is_refused(settings: Settings, folded: Folded, tmp_path: Path):
    shutil.copytree(folded.folds / "fold-1", tmp_path / "plain")
    with pytest.raises(CheckpointError, match="already holds a run without folds"):
        train_folds(settings("plain"), 2, force=True)
    with pytest.raises(TrainError, match="--folds: expected 2 to 20, got 21"):
        train_folds(settings(), 21)
    with pytest.raises(TypeError):
        train_folds(settings(), 2.0)  # type: ignore[arg-type]
    shutil.copytree(folded.folds, tmp_path / "copy")
    (tmp_path / "copy" / "fold-2" / "out_of_fold.npy").write_bytes(b"\x93NUMPY cut")
    with pytest.raises(CheckpointError, match=r"out_of_fold\.npy is damaged"):
        read_folds(tmp_path / "copy")
    shutil.copy(folded.folds / "fold-1" / "out_of_fold.npy", tmp_path / "copy" / "fold-2")
    with pytest.raises(CheckpointError, match="does not belong to the lists"):
        read_folds(tmp_path / "copy")
    (tmp_path / "copy" / "fold-2" / "out_of_fold.npy").unlink()
    with pytest.raises(CheckpointError, match="fold-2: the fold is not finished"):
        read_folds(tmp_path / "copy")
    for text in ("{", "[]", '{"folds": "3"}', '{"folds": 1}'):
        (tmp_path / "copy" / "folds.json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"folds\.json is damaged"):
            read_folds(tmp_path / "copy")
