"""Messages in the user's language, and the rule that every message can be translated."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.commands import ROOT

PACKAGE = ROOT / "pplc_cli"
ERRORS = {
    *("PplcError", "DataError", "ImageError", "ModelError", "DownloadError", "CheckpointError", "TrainError"),
    *("ExportError", "PredictError", "UsageError", "BadParameter", "ClickException", "Interrupted"),
}
PRINTERS = {"note", "hint", "echo", "print", "fail"}
WORDS = re.compile(r"[A-Za-z]{3,}")


def pplc_in(tmp_path: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pplc with no setting of the language but the given ones."""
    names = ("PPLC_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **environment}
    command = [sys.executable, "-m", "pplc_cli", *args]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8")


def is_chinese(text: str) -> bool:
    return bool(re.search("[\u4e00-\u9fff]", text))


def test_the_catalogue_is_complete():
    command = [sys.executable, "scripts/update_messages.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression is put together from."""
    if isinstance(node, ast.BinOp):
        yield from [*literals(node.left), *literals(node.right)]
    elif isinstance(node, ast.IfExp):
        yield from [*literals(node.body), *literals(node.orelse)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):  # without its placeholders
        yield "".join(str(each.value) for each in node.values if isinstance(each, ast.Constant))


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_messages_can_be_translated(file: Path) -> None:
    """An error or a printed line is no bare literal with words in it."""
    for call in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(call, ast.Call) and isinstance(call.func, (ast.Name, ast.Attribute)):
            name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
            if name in ERRORS | PRINTERS:
                bare = [text for value in call.args for text in literals(value) if WORDS.search(text)]
                assert not bare, f"line {call.lineno}: wrap in tr(): {bare}"


@pytest.mark.parametrize(
    ("environment", "chinese"),
    [
        ({"PPLC_LANG": "zh"}, True),
        ({"PPLC_LANG": "zh_CN"}, True),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LC_ALL": "zh_TW.UTF-8", "LANG": "en_US.UTF-8"}, True),
        ({"PPLC_LANG": "en", "LANG": "zh_CN.UTF-8"}, False),
        ({"PPLC_LANG": "fr"}, False),
        ({"LANG": "C"}, False),
        ({}, False),
    ],
)
def test_language_of_the_command_line(tmp_path: Path, environment: dict[str, str], chinese: bool) -> None:
    done = pplc_in(tmp_path, "train", "nothing.yaml", **environment)
    assert done.returncode == 1
    assert is_chinese(done.stderr) == chinese, done.stderr
    assert "nothing.yaml" in done.stderr


@pytest.mark.parametrize("command", ["", "train", "predict", "weights", "weights list"])
def test_chinese_help_fits_the_terminal(tmp_path: Path, command: str) -> None:
    from rich.cells import cell_len

    done = pplc_in(tmp_path, *command.split(), "--help", PPLC_LANG="zh", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert is_chinese(done.stdout)
    assert max(map(cell_len, done.stdout.splitlines())) <= 80


def test_wrong_options_are_told_in_chinese(tmp_path: Path) -> None:
    done = pplc_in(tmp_path, "train", "--no-such-option", PPLC_LANG="zh")
    assert done.returncode == 2
    assert "没有选项" in done.stderr


def test_the_library_speaks_english(tmp_path: Path) -> None:
    code = "import pplc_cli\ntry:\n pplc_cli.load_config('nothing.yaml')\nexcept pplc_cli.PplcError as e:\n print(e)"
    env = {**os.environ, "PPLC_LANG": "zh", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8")
    assert "nothing.yaml" in done.stdout
    assert not is_chinese(done.stdout)
