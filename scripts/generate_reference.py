"""Write the reference pages in docs/reference from the code: python scripts/generate_reference.py [--check]

With --check nothing is written; the exit status is 1 if a page differs from the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional, get_type_hints

import click
import yaml

from pplc_cli.base.schema import describe
from pplc_cli.cli.main import cli
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.pipeline import is_random
from pplc_cli.data.transforms.registry import TRANSFORMS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/generate_reference.py from the code. Do not edit. -->"

CONFIGURATION_INTRO = """\
# Configuration

All keys of the configuration. One YAML file configures all steps. `pplc init FOLDER` writes one with comments.
`-o KEY=VALUE` sets any key for one command, as in `-o train.epochs=5`. Only `data.dir` is required. An unknown key, a
wrong type and a value out of range are errors, and all errors are reported at once.

```yaml
data:
  dir: datasets/pandatiger
train:
  epochs: 20
output: output/pandatiger
```
"""
TRANSFORMS_INTRO = """\
# Transforms

All transforms and their arguments. `train.transforms` and `eval.transforms` are lists, applied in order. An item is a
name, or a name with arguments:

```yaml
eval:
  transforms:
    - ResizeByShort: {short_size: 256}
    - CenterCrop: {crop_size: 224}
    - Normalize
```

- `Normalize` is required, once. Other transforms come before it; only `RandomErasing` and `CenterCrop` may also come
  after it.
- `Mixup` and `CutMix` mix the images of a batch and come last.
- All images must get the same size: use `RandomCrop` with a `crop_size`, `CenterCrop` or `Resize`.
- `eval.transforms` takes no random transforms, and no resize with `interp: RANDOM`. An export allows
  [only some transforms](../export-and-engines.md#preprocessing).
- Sizes are in pixels: one side, or [height, width] where a list is allowed. Before `Normalize`, an image is RGB with
  values from 0 to 255.

`pplc preview` shows the result of `train.transforms`. An example: [your data](../your-data.md#transforms).
"""
COMMANDS_INTRO = """\
# Commands

All commands and their options, as `pplc COMMAND --help` (or `-h`) prints them. Rules for all commands, and the exit
statuses: [the command line](../command-line.md).
"""


def configuration_page() -> str:
    """One table per section, then one for the keys outside the sections."""
    parts = [NOTE, CONFIGURATION_INTRO]
    for key, cls in _sections(Config, ""):
        parts += [f"## `{key}`\n", f"{_plain(cls.__doc__ or '')}\n", _header("Key", "Value", "Default", "Meaning")]
        parts += [_row(f"`{key}.{name}`", *cells) for name, *cells in _fields(cls)]
        parts.append("")
    parts += ["## Keys outside the sections\n", _header("Key", "Value", "Default", "Meaning")]
    default = check_config({"data": {"dir": "photos/NAME"}}).output
    for name, value, _, meaning in _fields(Config):
        parts.append(_row(f"`{name}`", value, f"`{default}`", f"{meaning} NAME is the last part of `data.dir`."))
    return _page(parts)


def _sections(cls: type, key: str) -> Iterator[tuple[str, type]]:
    """Dotted keys and dataclasses of all sections, each before those within it."""
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield f"{key}{name}", hint
            yield from _sections(hint, f"{key}{name}.")


def _fields(cls: Any) -> Iterator[tuple[str, str, str, str]]:
    """Name, value, default and meaning of each field that is no section; Markdown."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            continue
        if field.default is not dataclasses.MISSING:
            default = _yaml(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = _yaml(field.default_factory())
        else:
            default = "required"
        yield field.name, describe(hints[field.name], field.metadata), default, field.metadata["help"]


def _yaml(value: Any) -> str:
    """Write a default as in the YAML file, on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10_000)
    return f"`{text.partition(chr(10))[0]}`"


def transforms_page() -> str:
    """A table of all transforms, then one section per transform."""
    parts = [NOTE, TRANSFORMS_INTRO, _header("Transform", "Allowed in", "Effect")]
    for name, cls in TRANSFORMS.items():
        # is_random reads nothing but the class and the default of interp.
        allowed = "`train`" if is_random(object.__new__(cls)) else "`train`, `eval`"
        parts.append(_row(f"[`{name}`](#{name.lower()})", allowed, _summary(cls).partition("\n")[0]))
    parts.append("")
    for name, cls in TRANSFORMS.items():
        parts += [f"## {name}\n", f"{_summary(cls)}\n"]
        parts.append(_header("Argument", "Value", "Default", "Meaning"))
        parts += [_row(f"`{argument}`", *cells) for argument, *cells in _fields(cls)]
        parts.append("")
    return _page(parts)


def _summary(cls: type) -> str:
    """The docstring as paragraphs of one line each."""
    return "\n\n".join(_plain(paragraph) for paragraph in (inspect.getdoc(cls) or "").split("\n\n"))


def commands_page() -> str:
    """One section per command and subcommand, with its options."""
    commands = list(_commands(cli, "pplc", None))
    parts = [NOTE, COMMANDS_INTRO, _header("Command", "Effect")]
    for path, command, _ in commands:
        anchor = path.replace(" ", "-")
        parts.append(_row(f"[`{path}`](#{anchor})", _plain((command.help or "").partition("\n\n")[0])))
    parts.append("")
    for path, command, context in commands:
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        parts += [f"## {path}\n", f"```\n{usage}\n```\n"]
        for paragraph in (command.help or "").split("\n\n"):
            verbatim = paragraph.startswith("\b\n")  # click's mark for lines that are not to be joined
            parts.append(f"```\n{paragraph[2:].rstrip()}\n```\n" if verbatim else f"{_plain(paragraph)}\n")
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        if options:
            parts.append(_header("Option", "Meaning"))
            parts += [_row(_spelling(option), _meaning(option)) for option in options]
            parts.append("")
    return _page(parts)


def _commands(
    group: click.Group, path: str, parent: Optional[click.Context]
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """All commands that do something, with the words that call them."""
    context = click.Context(group, info_name=path.split()[-1], parent=parent)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield f"{path} {name}", command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}", context)


def _spelling(option: click.Option) -> str:
    """All names of an option, with the word for its value."""
    names = [f"`{name}`" for name in (*option.opts, *option.secondary_opts)]
    if not (option.is_flag or option.count):
        choices = getattr(option.type, "choices", None)
        word = option.metavar or ("|".join(map(str, choices)) if choices else option.type.name.upper().split()[0])
        names[-1] = f"{names[-1][:-1]} {word}`"
    return ", ".join(names)


def _meaning(option: click.Option) -> str:
    """The help text, with range, default and repetition where click knows them.

    The text is made from to_info_dict, which looks alike in all versions of click that pplc allows.
    """
    info, notes = option.to_info_dict(), []
    kind = info["type"]
    low, high = kind.get("min"), kind.get("max")
    if low is not None:
        notes.append(f"{'more than' if kind.get('min_open') else 'at least'} {low:g}")
    if high is not None:
        notes.append(f"{'less than' if kind.get('max_open') else 'at most'} {high:g}")
    if info["required"]:
        notes.append("required")
    if info["multiple"] and "repeated" not in (option.help or ""):
        notes.append("repeatable")
    if option.show_default and info["default"] is not None and not option.is_flag:
        default = info["default"]
        notes.append(f"default: {', '.join(map(str, default)) if isinstance(default, (list, tuple)) else default}")
    text = _plain(option.help or "")
    return f"{text} ({'; '.join(notes)})" if notes else text


def _plain(text: str) -> str:
    """Docstring markup as Markdown, on one line."""
    text = re.sub(r":(?:class|func|data|meth|mod):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", re.sub(r"\s+", " ", text).strip())


def _header(*names: str) -> str:
    return f"{_row(*names)}\n{'|---' * len(names)}|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _page(parts: Iterable[str]) -> str:
    return "\n".join(parts).rstrip() + "\n"


PAGES = {
    "configuration.md": configuration_page,
    "transforms.md": transforms_page,
    "commands.md": commands_page,
}


def differing() -> list[str]:
    """Names of the pages that are missing or differ from the code."""
    pages = {name: FOLDER / name for name in PAGES}
    return [n for n, path in pages.items() if not path.is_file() or path.read_text(encoding="utf-8") != PAGES[n]()]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    stale = differing()
    if parser.parse_args().check:
        if stale:
            sys.exit(
                f"docs/reference: {', '.join(stale)} differ from the code; run: python scripts/generate_reference.py"
            )
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), encoding="utf-8", newline="\n")
        print(f"docs/reference/{name} written")


if __name__ == "__main__":
    main()
