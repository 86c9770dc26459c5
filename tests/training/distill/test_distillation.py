"""Distillation: losses, stored predictions, and runs of students."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from helpers.commands import recipe
from helpers.images import random_image, write_image
from helpers.runs import StopAfter, arrays, assert_same
from pplc_cli.base.errors import CheckpointError, ConfigError, TrainError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.load import check_config, load_config
from pplc_cli.data.decode import read_image
from pplc_cli.data.lists import list_unlabelled, read_labels, require_part
from pplc_cli.data.loading.loader import Batch, Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.distill.teacher import open_teacher
from pplc_cli.training.progress import Reporter
from pplc_cli.training.train import train

paddle = load_paddle()

from pplc_cli.models.registry import build_network  # noqa: E402
from pplc_cli.training.distill.distillation import Distillation, build_distillation  # noqa: E402

RANDOM = [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "RandomHorizontalFlip", "Normalize"]
FIXED = [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    """A folder of images without labels, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("loose 无标签")
    for number in range(9):
        write_image(folder / f"{number}.jpg", random_image(500 + number))
    write_image(folder / "more" / "x.png", random_image(600))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def configured(trained, loose, tmp_path):
    """A factory of configurations of a student of the trained run."""

    def make(distill=(), train=(), **data):
        return check_config(
            {
                "data": {"dir": str(trained.data), "unlabelled": str(loose), **data},
                "model": {"name": "PPLCNet_x0_25", "pretrained": "none"},
                "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "schedule": "constant",
                          "transforms": RANDOM, **dict(train)},
                "eval": {"transforms": FIXED},
                "distill": {"teacher": str(trained.run), "views": 2, **dict(distill)},
                "output": str(tmp_path / "student"),
            }
        )  # fmt: skip

    return make


def log_softmax(x):
    x = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


class Kept:
    """Stored predictions that are given, not computed."""

    def __init__(self, log_probabilities, features=None):
        self.views, self.size = 1, (32, 32)
        self.teacher = type("Teacher", (), {"features": 0 if features is None else features.shape[1]})
        self.mean = None if features is None else features.mean(axis=0)
        self.deviation = None if features is None else features.std(axis=0) + 1e-6
        self.kept = {"log_probabilities": log_probabilities.astype(np.float16)}
        if features is not None:
            self.kept["features"] = features.astype(np.float16)

    def of(self, view):
        return self.kept


@pytest.mark.parametrize("divergence", ["kl", "js"])
@pytest.mark.parametrize("heat", [1.0, 3.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss(divergence, heat, mixed):
    """Compare with float64, on random logits, features and labels."""
    rng = np.random.default_rng()
    n, classes, width = 12, 7, 1280
    logits = rng.normal(size=(n, classes)).astype(np.float32) * 3
    kept = Kept(log_softmax(rng.normal(size=(n + 5, classes)) * 2), rng.normal(2, 3, (n + 5, 20)))
    indices = rng.permutation(n + 5)[:n]
    labels = rng.integers(-1, classes, n)
    labels[:2] = -1, 3
    targets = np.eye(classes, dtype=np.float32)[labels] * (labels >= 0)[:, None]
    config = check_config(
        {"data": {"dir": "."}, "distill": {"teacher": "x", "divergence": divergence, "temperature": heat, "soft": 0.7,
                                           "features": 2.0, "hard": 0.3}}
    ).distill  # fmt: skip
    network = build_network("PPLCNet_x0_25", classes)
    distillation = Distillation(config, kept, network)
    features = rng.normal(size=(n, width)).astype(np.float32)
    mixing = rng.dirichlet(np.ones(n), n).astype(np.float32) if mixed else np.eye(n, dtype=np.float32)
    targets = mixing @ targets.astype(np.float32)
    batch = Batch(np.zeros((n, 3, 1, 1), np.float32), labels, targets, indices, n, mixing=mixing if mixed else None)
    got = float(distillation._loss(paddle.to_tensor(logits), paddle.to_tensor(features), batch, kept.of(0)))

    theirs = log_softmax(kept.kept["log_probabilities"][indices].astype(np.float64) / heat)
    theirs = np.log(mixing @ np.exp(theirs))
    mine = log_softmax(logits / heat)
    p, q = np.exp(theirs), np.exp(mine)
    if divergence == "kl":
        soft = (p * (theirs - mine)).sum(axis=1)
    else:
        middle = np.log((p + q) / 2)
        soft = ((p * (theirs - middle)).sum(axis=1) + (q * (mine - middle)).sum(axis=1)) / 2
    a = features.astype(np.float64) @ distillation.projection.weight.numpy() + distillation.projection.bias.numpy()
    b = mixing @ ((kept.kept["features"][indices].astype(np.float64) - kept.mean) / kept.deviation)
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    # A partly labelled image counts in part.
    hard = -(targets * log_softmax(logits)).sum() / targets.sum()
    expected = 0.7 * heat**2 * soft.mean() + 2.0 * (1 - cosine).mean() + 0.3 * hard
    assert got == pytest.approx(expected / (0.7 + 2.0 + 0.3), rel=1e-5)


class Counting(Reporter):
    def __init__(self):
        self.predicted, self.notes = [], []

    def teacher(self, done, total):
        self.predicted.append((done, total))

    def note(self, text):
        self.notes.append(text)


def loader_of(config, seed=0):
    labels = read_labels(config.data)
    samples = [*require_part(config.data, "train", labels), *unlabelled_of(config)]
    return Loader(samples, Pipeline(config.train.transforms, training=True), 8, len(labels), shuffle=True, seed=seed)


def unlabelled_of(config):
    from pathlib import Path

    return list_unlabelled(Path(config.data.unlabelled))


def test_the_teacher_predicts_once_and_sees_the_images_of_the_student(configured, trained, tmp_path):
    config = configured()
    network = build_network("PPLCNet_x0_25", 2)
    loader, first = loader_of(config), Counting()
    outputs = build_distillation(config, network, read_labels(config.data), loader, tmp_path / "kept", first).outputs
    total = 2 * len(loader.samples)
    assert first.predicted[-1] == (total, total) and [done for done, _ in first.predicted] == sorted(
        d for d, _ in first.predicted
    )
    teacher = open_teacher(str(trained.run), None, (32, 32))
    *_, normalize = loader.pipeline.sample
    for epoch in (1, 2, 5):
        kept = outputs.of(epoch % 2)
        for batch in loader.epoch(epoch):
            predicted, features = teacher.predict(batch.images, normalize)
            # float16 has 11 bits; other batches give other last bits of float32.
            np.testing.assert_allclose(kept["log_probabilities"][batch.indices], predicted, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(kept["features"][batch.indices], features, rtol=1e-3, atol=1e-3)
            assert {*batch.labels[batch.indices >= len(loader.samples) - 10]} <= {-1}
    one, other = (np.array(next(b.images for b in loader.in_order().epoch(e))) for e in (1, 3))
    assert np.array_equal(one, other)
    again = Counting()
    build_distillation(config, network, read_labels(config.data), loader_of(config), tmp_path / "kept", again)
    assert not again.predicted
    build_distillation(config, network, read_labels(config.data), loader_of(config, seed=1), tmp_path / "kept", again)
    assert again.predicted


@pytest.mark.parametrize("operator", ["Mixup", "CutMix"])
def test_the_teacher_sees_whole_images_and_the_student_blends_of_them(configured, tmp_path, operator):
    """The stored predictions do not depend on the blending, so it can be switched on and off for free."""
    labels = read_labels(configured().data)
    plain, blending = configured(), configured(train={"transforms": [*RANDOM, operator]})
    network, reports = build_network("PPLCNet_x0_25", len(labels)), Counting()
    build_distillation(plain, network, labels, loader_of(plain), tmp_path / "kept", Counting())
    loader = loader_of(blending)
    outputs = build_distillation(blending, network, labels, loader, tmp_path / "kept", reports).outputs
    assert not reports.predicted and len(list((tmp_path / "kept").iterdir())) == 1
    blended = 0
    for batch in loader.epoch(1):
        whole = {int(i): image for b in loader.unmixed().epoch(1) for i, image in zip(b.indices, np.array(b.images))}
        images = np.stack([whole[i] for i in batch.indices])
        blended += not np.allclose(batch.images, images)
        assert np.allclose(batch.mixing.sum(axis=1), 1)
        if operator == "Mixup":
            np.testing.assert_allclose(batch.images, np.tensordot(batch.mixing, images, 1), atol=1e-5)
        else:  # each pixel is of the image or of the one pasted into it, in the reported shares
            own = np.isclose(batch.images, images).all(axis=1).mean(axis=(1, 2))
            assert (own >= batch.mixing.diagonal() - 1e-6).all()
    assert blended
    logits, loss = Distillation(blending.distill, outputs, network)(network, batch, 1)
    assert np.isfinite(float(loss)) and logits.shape == [len(batch.labels), len(labels)]


def test_interrupted_predictions_resume(configured, tmp_path):
    class Stopping(Counting):
        def teacher(self, done, total):
            if done > total * 0.7:
                raise InterruptedError

    config, network = configured(), build_network("PPLCNet_x0_25", 2)
    with pytest.raises(InterruptedError):
        build_distillation(config, network, read_labels(config.data), loader_of(config), tmp_path / "kept", Stopping())
    assert [path.name for path in (tmp_path / "kept").rglob("*.*")] == ["view-0.safetensors"]
    counting = Counting()
    build_distillation(config, network, read_labels(config.data), loader_of(config), tmp_path / "kept", counting)
    assert counting.predicted[0][0] > len(loader_of(config).samples)


@pytest.mark.parametrize("features", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_a_resumed_student_ends_with_the_same_bits(configured, tmp_path, features):
    """A kill between two epochs; the projection of the features is resumed too."""
    config = configured({"features": features, "hard": 0.5, "divergence": "kl"}, {"ema_decay": 0.9})
    whole = train(config).run
    shutil.move(whole.folder, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(config, reporter=StopAfter(2))
    run = train(config, resume=True).run
    assert_same(arrays(tmp_path / "whole" / "last"), arrays(run.last))
    assert ("distill", "weight") in arrays(run.last) or not features


@pytest.mark.slow
def test_unlabelled_images_alone_are_enough(configured, trained, loose, tmp_path):
    """Without any label, the student comes to predict what its teacher predicts."""
    data = tmp_path / "no labels"
    data.mkdir()
    for name in ("labels.txt", "val_list.txt"):
        shutil.copy(trained.data / name, data)
    lines = [line.rpartition(" ") for line in (data / "val_list.txt").read_text(encoding="utf-8").splitlines()]
    (data / "val_list.txt").write_text("".join(f"{trained.data / name} {label}\n" for name, _, label in lines))
    config = configured({"divergence": "kl"}, {"epochs": 30, "ema_decay": 0.0}, dir=str(data),
                        unlabelled=str(trained.data))  # fmt: skip
    run = train(config).run
    log = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    assert {record["train_top1"] for record in log if record["event"] == "epoch"} == {0.0}
    pipeline, rng = Pipeline(FIXED, training=False), np.random.default_rng(0)
    student, teacher = (open_teacher(str(folder)) for folder in (run.folder, trained.run))
    samples = list_unlabelled(trained.data)
    images = np.stack([pipeline(read_image(sample.path), rng) for sample in samples])
    predicted = [each.predict(images, each.normalize)[0].argmax(axis=1) for each in (student, teacher)]
    assert (predicted[0] == predicted[1]).mean() > 0.9  # of two classes, half by chance


def test_all_kinds_of_teachers_predict_the_same(trained, quantised_folder, tmp_path):
    pipeline, rng = Pipeline(FIXED, training=False), np.random.default_rng(0)
    images = np.stack([pipeline(random_image(seed), rng) for seed in range(5)])
    exported = quantised_folder
    teachers = [open_teacher(str(where)) for where in (trained.run, exported, exported / "inference.onnx")]
    assert [teacher.features > 0 for teacher in teachers] == [True, True, False]
    predicted = [teacher.predict(images, teacher.normalize)[0] for teacher in teachers]
    for other in predicted[1:]:
        np.testing.assert_allclose(np.exp(other), np.exp(predicted[0]), atol=1e-4)


@pytest.fixture
def quantised_folder(trained, tmp_path):
    from helpers.commands import Pplc

    folder = tmp_path / "exported"
    Pplc(tmp_path)(
        "export", "--run", str(trained.run), "--output", str(folder), "--format", "onnx", "--format", "paddle"
    )
    return folder


def test_why_a_teacher_does_not_fit(configured, trained, untrained, tmp_path):
    def refused(message, kind=TrainError, **how):
        with pytest.raises(kind, match=message) as caught:
            train(configured(**how), force=True)
        assert "\n" not in str(caught.value)

    refused("has the classes dog, 猫 cat, a, b.*the data set has dog, 猫 cat", distill={"teacher": str(untrained(0))})
    refused("PPLCNet_x9.: expected the folder of a run", distill={"teacher": "PPLCNet_x9"})
    (tmp_path / "junk").mkdir()
    refused(r"junk: expected a run \(best_model/\), an exported folder", distill={"teacher": str(tmp_path / "junk")})
    refused("no images", kind=Exception, unlabelled=str(tmp_path / "junk"))
    for message, how in {
        "cannot be combined with train.freeze": {"train": {"freeze": "head"}},
        "are all 0": {"distill": {"soft": 0.0}},
        "cannot be combined with train.class_weights": {"train": {"class_weights": "balanced"}},
        "cannot be combined with train.transfer: head": {"train": {"transfer": "head"}},
        "require distill.teacher": {"distill": {"teacher": None}},
    }.items():
        with pytest.raises(ConfigError, match=message):
            configured(**how)


def test_the_command(pplc, trained, loose):
    done = pplc("distill", *recipe(trained.data, epochs=1), "--teacher", str(trained.run), "--unlabelled", str(loose),
                "--hard", "0.5", "--views", "1", "--temperature", "2", "--output", "small")  # fmt: skip
    assert "distilling PPLCNet_x0_25 of" in done.stderr and (pplc.cwd / "small" / "best_model").is_dir()
    assert load_config(pplc.cwd / "small" / "config.yaml").distill.temperature == 2
    assert pplc("eval").returncode == 0
    failed = pplc(
        "distill", *recipe(trained.data), "--teacher", str(trained.run), "--unlabelled", "nowhere", check=False
    )
    assert failed.returncode == 1 and "no such folder 'nowhere'" in failed.stderr and "Traceback" not in failed.stderr


def test_validation_and_test_images_are_not_trained_on(configured, trained, tmp_path):
    """The folder of unlabelled images may be that of the data set, with its validation and test images."""
    config, noting = configured({"views": 1}, {"epochs": 1}, unlabelled=str(trained.data)), Counting()
    run = train(config, reporter=noting).run
    log = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    own = require_part(config.data, "train", read_labels(config.data))
    assert {r["steps"] for r in log if r["event"] == "step"} <= {-(-len(own) // 8)}
    assert "80 images are skipped: they are on the data set's own lists" in noting.notes


def test_broken_unlabelled_images_do_not_stop_training(configured, loose, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(loose, folder)
    (folder / "broken.jpg").write_bytes((folder / "1.jpg").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    counting = Counting()
    train(configured({"views": 1}, {"epochs": 1}, unlabelled=str(folder)), reporter=counting)
    (note,) = [note for note in counting.notes if "cannot be read" in note]
    assert "broken.jpg is broken" in note and "and 1 more cannot be read" in note


def test_a_run_is_resumed_only_with_the_same_teacher(configured, trained, untrained):
    config = configured({"features": 1.0})
    with pytest.raises(InterruptedError):
        train(config, reporter=StopAfter(1))
    for other in ({"features": 0.0}, {"soft": 0.5, "features": 1.0}, {"teacher": str(trained.folder), "features": 1.0}):
        with pytest.raises(CheckpointError, match=r"cannot be resumed with another recipe .*distill"):
            train(configured(other), resume=True)
    plain = check_config(config.to_dict(), {"distill.teacher": None, "data.unlabelled": None})
    with pytest.raises(CheckpointError, match="cannot be resumed with another recipe"):
        train(plain, resume=True)
