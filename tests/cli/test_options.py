"""Options of several commands: one name for one thing, and older names still work."""

from __future__ import annotations

import click
import pytest

from pplc_cli.cli.main import cli


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
