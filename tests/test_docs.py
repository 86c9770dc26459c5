"""The documents name what there is, and nothing that there is not."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import click
import pytest
import yaml

import pplc_cli
from pplc_cli.cli.main import cli
from pplc_cli.config.load import check_config
from pplc_cli.data.transforms.pipeline import TRANSFORMS
from pplc_cli.models.registry import network_names

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README_zh.md")
MADE_BY_EXAMPLES = {"configs/photos.yaml"}  # what pplc init writes in the example

pytestmark = pytest.mark.parametrize("name", READMES)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)


def options_of(command: click.Command) -> set[str]:
    options = {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return options.union(*map(options_of, command.commands.values() if isinstance(command, click.Group) else ()))


def word(text: str) -> str:
    """A pattern of the text where it is no part of a longer name."""
    return rf"(?<![A-Za-z0-9_]){re.escape(text)}(?![A-Za-z0-9_])"


def test_every_command_has_help_and_is_named(name):
    for command_name, command in cli.commands.items():
        assert command.help, command_name
        assert re.search(word(f"pplc {command_name}"), text_of(name)), command_name


def test_every_command_and_option_that_is_named_exists(name):
    found = re.findall(r"pplc ([a-z]+)\b([^`\n|#]*)", "\n".join([*blocks(name, "bash"), *inline_code(name)]))
    assert len(found) > 10
    for command_name, rest in found:
        assert command_name in cli.commands, command_name
        unknown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) - options_of(cli.commands[command_name])
        assert not unknown, (command_name, unknown)


def test_options_named_alone_exist(name):
    known = set().union(*map(options_of, cli.commands.values())) | {"--slow"}  # of scripts/test.sh
    named = {code.split()[0] for code in inline_code(name) if code.startswith("-") and code != "-"}
    assert named <= known, named - known


def inline_code(name: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", text_of(name), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose)


def test_every_environment_variable_is_named(name):
    used = set()
    for file in (ROOT / "pplc_cli").rglob("*.py"):
        used.update(re.findall(r"PPLC_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8")))
    assert used
    missing = {variable for variable in used if not re.search(word(variable), text_of(name))}
    assert not missing


def test_the_yaml_has_every_key_with_its_default(name):
    (block,) = blocks(name, "yaml")
    written = yaml.safe_load(block)
    default = check_config({"data": {"dir": written["data"]["dir"]}})
    assert check_config(written) == default
    for section in dataclasses.fields(default):
        value = getattr(default, section.name)
        if dataclasses.is_dataclass(value):
            assert list(written[section.name]) == [f.name for f in dataclasses.fields(value)]
    assert set(written) == {f.name for f in dataclasses.fields(default)}


def test_every_transform_is_named_with_its_arguments(name):
    rows = [line.split("|")[1:-1] for line in text_of(name).splitlines() if line.startswith("|")]
    for transform, cls in TRANSFORMS.items():
        found = [cells for cells in rows if re.search(word(transform), cells[0])]
        assert len(found) == 1, transform
        for field in dataclasses.fields(cls):
            kind = field.name.rpartition("_")[2]  # X_range stands for brightness_range and its like
            either = f"{word(field.name)}|{word(f'X_{kind}')}"
            assert re.search(either, found[0][2]), (transform, field.name)


def test_every_network_is_named(name):
    assert not [network for network in network_names() if not re.search(word(network), text_of(name))]


def test_files_that_are_named_exist(name):
    named = set(re.findall(r"(?:scripts|configs)/[a-z0-9_-]+\.(?:sh|py|yaml)", text_of(name)))
    named.update(link for link in re.findall(r"\]\(([^)#:]+)\)", text_of(name)))
    assert {"scripts/demo.sh", "scripts/test.sh", "configs/pandatiger.yaml", "CHANGELOG.md"} <= named
    assert not [file for file in named - MADE_BY_EXAMPLES if not (ROOT / file).is_file()]


def test_python_examples_import_what_there_is(name):
    imported = set()
    for block in blocks(name, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "pplc_cli":
                imported.update(alias.name for alias in node.names)
    assert {"load_config", "train", "evaluate", "export", "Predictor"} <= imported
    assert imported <= set(pplc_cli.__all__)


def test_the_two_readmes_have_the_same_examples(name):
    def bare(text: str) -> list[str]:
        return [line.partition("#")[0].rstrip() for line in text.splitlines()]

    for language in ("bash", "python"):
        assert list(map(bare, blocks(name, language))) == list(map(bare, blocks(READMES[0], language)))
