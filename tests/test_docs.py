"""The documents and the code agree: reference pages, links, commands, options, keys and public names."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional, get_type_hints

import click
import pytest
import yaml

import pplc_cli
from helpers.tutorial import write_tutorial
from pplc_cli.cli.main import cli
from pplc_cli.config.load import check_config, parse_override
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.registry import TRANSFORMS
from pplc_cli.models.registry import network_names

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import generate_reference

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "README_zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
GENERATED = [f"docs/reference/{name}" for name in generate_reference.PAGES]
PAGES = [*TOP, *DOCS]
every_page = pytest.mark.parametrize("page", PAGES)

FENCE = re.compile(r"^( *)(`{3,}|~{3,})(\S*)[^\n]*\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
SCHEMES = ("http://", "https://", "mailto:")
MADE_BY_EXAMPLES = {"configs/photos.yaml", "configs/photos-tuned.yaml"}  # pplc init and pplc tune write them


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks in any of the languages, without the fence's indentation."""
    found = FENCE.findall(text_of(page))
    return [re.sub(rf"^{indent}", "", body, flags=re.M) for indent, _, word, body in found if word in languages]


def prose(page: str) -> str:
    """The text without fenced blocks."""
    return FENCE.sub("", text_of(page))


def inline_code(page: str) -> list[str]:
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def whole_word(text: str) -> str:
    """A pattern for the text where it is not part of a longer name."""
    return rf"(?<![A-Za-z0-9_]){re.escape(text)}(?![A-Za-z0-9_])"


# Reference pages


@pytest.mark.parametrize("name", list(generate_reference.PAGES))
def test_reference_pages_equal_the_code(name: str) -> None:
    assert name not in generate_reference.differing(), "run: python scripts/generate_reference.py"


def test_check_names_the_pages_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate_reference, "FOLDER", tmp_path / "reference")
    monkeypatch.setattr(generate_reference, "PAGES", {"a.md": lambda: "a\n", "b.md": lambda: "b\n"})
    monkeypatch.setattr(sys, "argv", ["generate_reference.py"])
    generate_reference.main()
    assert (tmp_path / "reference" / "a.md").read_bytes() == b"a\n"
    monkeypatch.setattr(sys, "argv", ["generate_reference.py", "--check"])
    generate_reference.main()
    (tmp_path / "reference" / "b.md").write_text("stale\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"docs/reference: b\.md differ"):
        generate_reference.main()
    assert (tmp_path / "reference" / "b.md").read_text(encoding="utf-8") == "stale\n"


def keys_without_meaning(cls: Any) -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from keys_without_meaning(hints[field.name])
        elif not re.fullmatch(r"[A-Z`\[].*\.", field.metadata.get("help", "")):
            yield f"{cls.__name__}.{field.name}"


@pytest.mark.parametrize("cls", [Config, *TRANSFORMS.values()])
def test_every_key_has_a_meaning(cls: type) -> None:
    assert list(keys_without_meaning(cls)) == []


# Links


def links(page: str) -> list[str]:
    text = re.sub(r"`[^`\n]+`", "", prose(page))
    return [*re.findall(r"\]\(\s*<?([^()\s>]+)>?[^()]*\)", text), *re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.M)]


def anchors(page: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = 1
        unique = slug
        while unique in found:
            unique, count = f"{slug}-{count}", count + 1
        found.add(unique)
    return found


def target_of(page: str, link: str) -> tuple[Path, str]:
    """The file and the anchor of a relative link."""
    path, _, anchor = link.partition("#")
    return ((ROOT / page).parent / path).resolve() if path else ROOT / page, anchor


@every_page
def test_links_lead_somewhere(page: str) -> None:
    for link in links(page):
        if link.startswith(SCHEMES):
            continue
        target, anchor = target_of(page, link)
        assert target.is_relative_to(ROOT) and target.exists(), f"{page}: {link}: no such file"
        if anchor:
            known = anchors(target.relative_to(ROOT).as_posix())
            assert anchor in known, f"{page}: {link}: no such heading; there are {sorted(known)}"


def test_every_page_is_linked() -> None:
    linked = {target_of(page, link)[0] for page in PAGES for link in links(page) if not link.startswith(SCHEMES)}
    assert [page for page in DOCS if ROOT / page not in linked] == []


def test_modules_that_the_architecture_names_exist() -> None:
    """Paths are relative to the package, as in `data/split.py`, or to a folder within it."""
    code = "\n".join(inline_code("docs/architecture.md"))
    named = set(re.findall(r"^[a-z_/]+/[a-z_]+\.py$", code, re.MULTILINE))
    assert "training/train.py" in named
    assert (
        sorted(name for name in named if not list((ROOT / "pplc_cli").rglob(name)) and not (ROOT / name).exists()) == []
    )


@every_page
def test_files_that_are_named_exist(page: str) -> None:
    if page == "CHANGELOG.md":
        return  # it also names what a version removed
    named = set(re.findall(r"(?<![\w/.])(?:scripts|configs|tests|pplc_cli|\.ci)/[\w/.*-]*\w", text_of(page)))
    named = {name for name in named - MADE_BY_EXAMPLES if "NAME" not in name}
    assert sorted(name for name in named if not list(ROOT.glob(name))) == []


# Commands


class Line(NamedTuple):
    """A command line of a document: the words after ``pplc``."""

    words: list[str]

    def command(self) -> tuple[click.Command, list[str]]:
        """The command that the first words name, and the words after them."""
        command: click.Command = cli
        words = list(self.words)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"pplc {shlex.join(self.words)}: no such command"
            command = found
        return command, words


def command_lines(text: str) -> Iterator[Line]:
    """The calls of pplc in shell text."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not re.search(r"(?<![\w/.-])pplc ", line):
            continue
        words = shlex.split(line, comments=True)
        for end in (*(i for i, word in enumerate(words) if word in ("&&", "|", ";", ">", "2>")), len(words)):
            start = max((i for i, word in enumerate(words[:end]) if word in ("&&", "|", ";")), default=-1) + 1
            call = [word for word in words[start:end] if not re.fullmatch(r"[A-Z_]+=\S*", word)] if start < end else []
            if call[:1] == ["pplc"]:
                yield Line(call[1:])


def all_commands(group: Optional[click.Group] = None, path: str = "pplc") -> Iterator[tuple[str, click.Command]]:
    group = group or cli
    yield path, group
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def option_names(command: click.Command) -> set[str]:
    own = {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}
    return own | {"--help", "-h"}


@every_page
def test_command_lines_are_valid(page: str) -> None:
    if page == "docs/reference/commands.md":
        return
    for block in blocks(page, "bash", "sh", "console", ""):
        for line in command_lines(block):
            command, words = line.command()
            shown = f"{page}: pplc {shlex.join(line.words)}"
            try:
                context = command.make_context(command.name, list(words))
            except click.exceptions.Exit:  # --help
                continue
            except click.ClickException as error:
                pytest.fail(f"{shown}: {error.format_message()}")
            overrides = dict(parse_override(text) for text in context.params.get("overrides", ()))
            try:
                check_config({"data": {"dir": "photos"}}, overrides)
            except pplc_cli.PplcError as error:
                pytest.fail(f"{shown}: {error}")


@every_page
def test_commands_in_the_text_exist(page: str) -> None:
    for code in inline_code(page):
        if not re.match(r"pplc [a-z]", code):
            continue
        command, words = Line(re.sub(r"\\\|", "|", code).split()[1:]).command()
        unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - option_names(command)
        assert not unknown, f"{page}: {code}: {sorted(unknown)}"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page != "CHANGELOG.md"],  # the changelog also names what a version removed
)
def test_options_in_the_text_exist(page: str) -> None:
    known = {option for _, command in all_commands() for option in option_names(command)}
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "scripts").glob("*.py")))
    known |= {"--slow", *re.findall(r"\"(--[a-z][a-z-]*)\"", scripts)}
    named = {re.split(r"[ =]", code)[0] for code in inline_code(page) if re.match(r"--?[a-z]", code)}
    assert sorted(named - known) == []


def test_every_command_has_help() -> None:
    assert [path for path, command in all_commands() if not command.help] == []


def test_every_command_is_described_in_a_page() -> None:
    written = "".join(text_of(page) for page in ("README.md", *DOCS) if page not in GENERATED)
    paths = [path for path, command in all_commands() if not isinstance(command, click.Group)]
    assert [path for path in paths if not re.search(whole_word(path), written)] == []


# Configuration and Python


@every_page
def test_yaml_blocks_are_valid_configurations(page: str) -> None:
    for block in blocks(page, "yaml", "yml"):
        written = yaml.safe_load(block)
        if page == "README_zh.md" and len(written) > 5:  # its table of all keys
            written["output"] = "output/x"
        data = {"dir": "photos", **(written.get("data") or {})}
        check_config({**written, "data": data})


@every_page
def test_python_blocks_import_public_names(page: str) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "pplc_cli":
                names = {alias.name for alias in node.names}
                assert names <= set(pplc_cli.__all__), f"{page}: {sorted(names - set(pplc_cli.__all__))}"


def test_public_names_exist_and_are_documented() -> None:
    for name in pplc_cli.__all__:
        assert getattr(pplc_cli, name) is not None
    documented = {code for code in inline_code("docs/python-api.md") if code.isidentifier()}
    assert sorted(set(pplc_cli.__all__) - {"__version__"} - documented) == []


def dotted_keys(cls: Any = Config, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from dotted_keys(hint, f"{prefix}{name}.")


@every_page
def test_keys_in_the_text_exist(page: str) -> None:
    known = set(dotted_keys())
    sections = "|".join(sorted({key.partition(".")[0] for key in known if "." in key}))
    named = set(
        re.findall(rf"(?:^|[^\w./*-])((?:{sections})\.[a-z][a-z0-9_.]*[a-z0-9])\b(?!\()", "\n".join(inline_code(page)))
    )
    files = {key for key in named if key.rpartition(".")[2] in ("py", "txt")}
    assert sorted(named - files - known) == []


def test_every_environment_variable_is_documented() -> None:
    used: set[str] = set()
    for file in (ROOT / "pplc_cli").rglob("*.py"):
        used.update(re.findall(r"PPLC_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8")))
    assert used
    assert [name for name in sorted(used) if not re.search(whole_word(name), text_of("docs/command-line.md"))] == []


def test_every_network_is_documented() -> None:
    text = text_of("docs/networks.md") + text_of("docs/zoo.md")
    assert [name for name in network_names() if not re.search(whole_word(name), text)] == []


# The README


@pytest.mark.parametrize("page", ["README.md", "README_zh.md"])
def test_readme_is_short(page: str) -> None:
    assert len(text_of(page).splitlines()) <= 150


# Examples that run


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The blocks of docs/python-api.md, in order, in a folder with a small data set and short recipes."""
    pytest.importorskip("fastapi", reason="the service's example needs fastapi")
    write_tutorial(tmp_path)
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks("docs/python-api.md", "python")):
        exec(compile(block, str(tmp_path / f"block_{number}.py"), "exec"), {})
