"""The public names of the package, as a program or a notebook uses them."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

import pplc_cli
from helpers.commands import ROOT
from helpers.images import random_image, write_image
from pplc_cli import (
    PplcError,
    Reporter,
    Run,
    TrainingStopped,
    TrainProgress,
    load_config,
    load_run,
    split_dataset,
    train,
)
from pplc_cli.training.progress import epoch_line

TINY: dict[str, Any] = {
    "model": {"name": "PPLCNet_x0_25", "pretrained": "none"},
    "train": {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.02,
        "schedule": "constant",
        "transforms": [{"RandomCrop": {"crop_size": 32}}, "Normalize"],
    },
    "eval": {"transforms": [{"Resize": {"target_size": 32}}, "Normalize"]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two classes with its lists."""
    folder = tmp_path_factory.mktemp("data set")
    for label, name in enumerate(("dog", "猫")):
        for index in range(12):
            image = random_image(100 * label + index) // 2
            image[12:36, 12:36, 2 * label] += 100
            write_image(folder / name / f"{index}.png", image)
    split_dataset(str(folder))
    return folder


def raw(data: Path, output: Path, **train: Any) -> dict[str, Any]:
    """A short recipe as plain data."""
    return {**TINY, "data": {"dir": str(data)}, "output": str(output), "train": {**TINY["train"], **train}}


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run."""
    return train(raw(data, tmp_path_factory.mktemp("run") / "out")).run


# The list of names


@pytest.mark.parametrize("name", sorted(set(pplc_cli.__all__) - {"__version__"}))
def test_a_public_name_has_a_docstring_and_is_in_the_guide(name: str) -> None:
    thing = getattr(pplc_cli, name)
    assert inspect.getdoc(thing), name
    if inspect.isfunction(thing):
        text = inspect.getdoc(thing) or ""
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"\b{parameter}\b", text), f"{name}: the docstring does not explain {parameter}"
        assert "Raises:" in text or name == "accelerate"
    guide = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    assert re.search(rf"`{name}`", guide)


def test_names_for_type_checkers_are_the_public_names() -> None:
    source = Path(pplc_cli.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r" as (\w+)$", source, re.MULTILINE)) == set(pplc_cli.__all__) - {"__version__"}


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        pplc_cli.trian  # noqa: B018


# Arguments


WRONG: dict[str, tuple[str, Callable[[], Any]]] = {
    "load_config path": ("path: expected", lambda: pplc_cli.load_config(3)),  # type: ignore[arg-type]
    "load_config overrides": ("overrides: expected", lambda: pplc_cli.load_config(None, ["a=1"])),  # type: ignore[arg-type]
    "load_run": ("folder: expected", lambda: pplc_cli.load_run(3)),  # type: ignore[arg-type]
    "split_dataset folder": ("folder: expected", lambda: pplc_cli.split_dataset(None)),  # type: ignore[arg-type]
    "split_dataset config": ("config: expected", lambda: pplc_cli.split_dataset("x", {"val": 0.1})),  # type: ignore[arg-type]
    "train config": ("config: expected", lambda: pplc_cli.train(3)),  # type: ignore[arg-type]
    "train reporter": ("reporter: expected", lambda: pplc_cli.train({"data": {"dir": "x"}}, reporter=print)),  # type: ignore[arg-type]
    "evaluate run": ("run: expected", lambda: pplc_cli.evaluate(None)),  # type: ignore[arg-type]
    "evaluate config": ("config: expected", lambda: pplc_cli.evaluate("x", 3)),  # type: ignore[arg-type]
    "export run": ("run: expected", lambda: pplc_cli.export(3)),  # type: ignore[arg-type]
    "Predictor folder": ("folder: expected", lambda: pplc_cli.Predictor(3)),  # type: ignore[arg-type]
    "Predictor threads": ("threads: expected", lambda: pplc_cli.Predictor("x", threads="2")),  # type: ignore[arg-type]
    "read_image": ("path: expected", lambda: pplc_cli.read_image(3)),  # type: ignore[arg-type]
    "decode_image": ("data: expected", lambda: pplc_cli.decode_image("x.jpg")),  # type: ignore[arg-type]
    "build_network name": ("name: expected", lambda: pplc_cli.build_network(3, 2)),  # type: ignore[arg-type]
    "build_network classes": ("num_classes: expected", lambda: pplc_cli.build_network("PPLCNet_x0_25", "2")),  # type: ignore[arg-type]
    "build_network bool": (
        "num_classes: expected int, got bool True",
        lambda: pplc_cli.build_network("PPLCNet_x0_25", True),
    ),
    "register_network name": ("name: expected", lambda: pplc_cli.register_network(3, print)),  # type: ignore[arg-type]
    "register_network factory": ("factory: expected", lambda: pplc_cli.register_network("x", "Net")),  # type: ignore[arg-type]
    "register_transform": ("factory: expected", lambda: pplc_cli.register_transform("x", 3)),  # type: ignore[arg-type]
    "accelerate": ("network: expected", lambda: pplc_cli.accelerate("PPLCNet_x0_25")),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_types_are_answered_in_one_line(case: str) -> None:
    words, call = WRONG[case]
    with pytest.raises(TypeError) as caught:
        call()
    text = str(caught.value)
    assert words in text and "got" in text and "\n" not in text and len(text) < 200


def test_export_takes_lists_of_names(run: Run) -> None:
    with pytest.raises(TypeError, match=r"formats: expected a list of names, got str 'onnx'"):
        pplc_cli.export(run, formats="onnx")


# Runs


def test_a_run_is_opened_by_its_path(run: Run, data: Path) -> None:
    for given in (str(run.folder), run.folder):
        opened = load_run(given)
        assert opened == run and opened.labels == ["dog", "猫"]
        assert opened.config.model.name == "PPLCNet_x0_25" and opened.config.data.dir == str(data)
        assert opened.config.output == str(run.folder)
        assert [record["epoch"] for record in opened.history] == [1, 2]
        assert {"train_loss", "val_top1", "best", "seconds"} <= opened.history[0].keys()
        assert (opened.best / "model.safetensors").is_file()
    with pytest.raises(PplcError, match="no trained run"):
        load_run(data)


def test_runs_and_configurations_are_given_by_path_or_object(run: Run, data: Path, tmp_path: Path) -> None:
    found = pplc_cli.evaluate(str(run.folder))
    assert found.folder == run.folder / "eval_test" and set(run.metrics) >= {"test"}
    assert run.metrics["test"]["top1"] == found.metrics["top1"]
    assert pplc_cli.evaluate(run, run.config_file, output=tmp_path / "report").metrics == found.metrics
    assert pplc_cli.evaluate(run.folder, run.config, output=str(tmp_path / "report")).metrics == found.metrics
    exported = pplc_cli.export(str(run.folder))
    assert exported.folder == run.exported
    (prediction,) = pplc_cli.Predictor(run.exported).predict([str(data / "dog" / "0.png")])
    assert prediction.label in run.labels


def test_training_takes_a_file(data: Path, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(raw(data, tmp_path / "out", epochs=1), allow_unicode=True), encoding="utf-8")
    result = train(str(file))
    assert result.epochs == 1 and result.run.history[0]["val_top1"] == result.best["val_top1"]


# Progress


class Events(Reporter):
    """Keeps every report."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __enter__(self) -> Events:
        self.seen.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.seen.append("exit")

    def note(self, text: str) -> None:
        self.seen.append("note")

    def step(self, record: dict[str, Any]) -> None:
        assert 0 < record["step"] <= record["steps"] and 0 <= record["top1"] <= 1
        self.seen.append("step")

    def epoch(self, record: dict[str, Any]) -> None:
        self.seen.append(f"epoch {record['epoch']}")


def test_a_reporter_receives_steps_and_epochs(data: Path, tmp_path: Path) -> None:
    events = Events()
    train(raw(data, tmp_path / "out"), reporter=events)
    assert events.seen[0] == "enter" and events.seen[-1] == "exit"
    steps = [each for each in events.seen if each not in ("enter", "exit", "note")]
    per_epoch = steps.index("epoch 1")
    assert per_epoch > 0 and steps == (["step"] * per_epoch + ["epoch 1"] + ["step"] * per_epoch + ["epoch 2"])


def test_stop_ends_training_from_another_thread_and_resume_continues(data: Path, tmp_path: Path) -> None:
    class StopLater(Events):
        def epoch(self, record: dict[str, Any]) -> None:
            super().epoch(record)
            stopper = threading.Thread(target=self.stop)
            stopper.start()
            stopper.join()

    config, events = raw(data, tmp_path / "out"), StopLater()
    with pytest.raises(TrainingStopped, match="resume continues after the last complete epoch"):
        train(config, reporter=events)
    assert events.seen[-2:] == ["step", "exit"] and "epoch 2" not in events.seen
    assert [record["epoch"] for record in load_run(tmp_path / "out").history] == [1]
    assert train(config, resume=True).epochs == 2


def test_an_exception_of_a_reporter_passes_through(data: Path, tmp_path: Path) -> None:
    class Cancel(Exception):
        pass

    class Cancelling(Events):
        def step(self, record: dict[str, Any]) -> None:
            raise Cancel

    events = Cancelling()
    with pytest.raises(Cancel):
        train(raw(data, tmp_path / "out"), reporter=events)
    assert events.seen[-1] == "exit"


RECORD = {
    "epoch": 1000,
    "epochs": 1000,
    "train_loss": 0.43125,
    "val_loss": 0.5125,
    "train_top1": 1.0,
    "val_top1": 1.0,
    "seconds": 3723.4,
    "best": True,
}


def test_an_epoch_fits_80_columns() -> None:
    assert epoch_line(RECORD) == "epoch 1000/1000  loss 0.431, val 0.512  top-1 100.0%, val 100.0%  1:02:03  best"
    assert len(epoch_line(RECORD)) <= 80


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainProgress() as progress:
        progress.note("a note " * 30)
        progress.step({**RECORD, "step": 1, "steps": 2, "loss": 1, "top1": 0.5, "learning_rate": 0.1,
                       "images_per_second": 10.0, "seconds_left": 5.0})  # fmt: skip
        progress.epoch(RECORD)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines() == ["a note " * 30, epoch_line(RECORD)]


# Logging


def test_the_package_is_silent_unless_the_program_sets_up_logging(data: Path, tmp_path: Path) -> None:
    code = f"""
import logging, sys
import pplc_cli
config = {raw(data, tmp_path / "out", epochs=1)!r}
pplc_cli.train(config)
print("now with logging", file=sys.stderr)
logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s")
pplc_cli.train(config, force=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    before, _, after = done.stderr.partition("now with logging\n")
    assert (done.stdout, before) == ("", "")
    lines = [line for line in after.splitlines() if line.startswith("pplc_cli|")]
    assert re.fullmatch(r"pplc_cli\|epoch 1/1  loss .*", lines[-1])


def test_notes_are_logged(caplog: pytest.LogCaptureFixture, data: Path, tmp_path: Path) -> None:
    config = raw(data, tmp_path / "out", epochs=1)
    with caplog.at_level(logging.INFO, logger="pplc_cli"):
        train(config, resume=True)
    assert any("has no complete epoch yet; starting from the beginning" in text for text in caplog.messages)


def test_configurations_are_read_from_paths(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {dir: d}\n", encoding="utf-8")
    assert load_config(str(file)) == load_config(file)
