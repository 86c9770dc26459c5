"""Options of several commands: one name for one thing, older names still work, and faults are named by the option."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pplc_cli.cli.main import cli

PREDICT = ("predict", "x.jpg", "--exported", ".")


@pytest.mark.parametrize(
    ("words", "name"),
    [(["train"], "--network"), (["distill"], "--network"), (["weights", "import", "FILE"], "--network"),
     (["predict", "INPUT"], "--exported")],
)  # fmt: skip
def test_renamed_options_keep_their_old_name(words: list[str], name: str) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group):
        word, *words = words
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    for used in (name, "--model"):
        assert command.make_context("pplc", [*words, used, "value"]).params["model"] == "value"
    text = command.get_help(click.Context(command))
    assert f"  {name} " in text and "--model" not in text
    with pytest.raises(click.BadOptionUsage, match=f"{name}.* requires an argument"):
        command.make_context("pplc", [*words, name])


def answer(*words: str) -> str:
    """The message of a command that must fail."""
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 1, done.output
    assert done.output.startswith("Error: ")
    return done.output.strip()[len("Error: ") :]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (
            [*PREDICT, "--engine", "onyx"],
            "--engine: expected one of default, auto, paddle",
        ),
        ([*PREDICT, "-o", "predict.top_k=0"], "-o predict.top_k=0: expected an integer"),
        (["train", "c.yaml", "--epochs", "0"], "--epochs: expected an integer of at least 1"),
        (["train", "c.yaml", "--network", "PPLCNet_x9"], "--network: unknown network 'PPLCNet_x9'"),
        (["train", "c.yaml", "--device", "tpu"], "--device: expected cpu, auto, gpu:0 or gpu:0,1, got 'tpu'"),
        (["train", "c.yaml", "-o", "train.epoch=3"], "-o train.epoch=3: unknown key; did you mean train.epochs?"),
        (["train", "c.yaml", "-o", "split={val: 2}"], "-o split={val: 2}: split.val: expected a number"),
        (["split", "--config", "c.yaml", "--val", "2"], "--val: expected a number"),
        (["distill", "c.yaml", "--temperature", "0"], "--temperature: expected a number of more than 0"),
    ],
)
def test_a_fault_is_named_by_its_option(
    words: list[str], start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("data: {dir: .}\n", encoding="utf-8")
    assert answer(*words).startswith(start)


def test_faults_of_the_file_stay_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("data: {dir: .}\ntrain: {batch_size: 0}\n", encoding="utf-8")
    assert answer("train", "c.yaml").startswith("c.yaml: train.batch_size: expected an integer")
    assert answer("train", "c.yaml", "--epochs", "0").splitlines()[0] == "c.yaml: 2 faults"
    assert "  --epochs: expected an integer" in answer("train", "c.yaml", "--epochs", "0")
    assert "  train.batch_size: expected" in answer("train", "c.yaml", "--epochs", "0")
