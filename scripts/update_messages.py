"""Collect the messages of the code, and compile their translations: python scripts/update_messages.py [--check]

Messages are the arguments of ``tr``, ``trn``, ``marked`` and ``chart_text``, and the help of all commands and options.
New ones get an empty translation in pplc_cli.po, to be filled in by hand; those that are gone are removed. With --check
nothing is written.
The exit status is 1 if a file would change with --check, or if a translation is missing or has other placeholders.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

import click
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from pplc_cli.base.language.messages import CATALOGUES
from pplc_cli.base.storage.files import write_text
from pplc_cli.cli.command import help_of
from pplc_cli.cli.main import cli

PACKAGE = Path(__file__).resolve().parent.parent / "pplc_cli"
KEYWORDS = {"tr": None, "trn": (1, 2), "marked": None, "chart_text": None}
HEADER = """\
# Messages of pplc. New entries come from the code, by scripts/update_messages.py.
msgid ""
msgstr ""
"Language: zh\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=1; plural=0;\\n"
"""


def collect() -> Catalog:
    """The messages of the package, in the order of the files, then the help texts."""
    catalog = Catalog()
    for *_place, message, _comments, _context in extract_from_dir(PACKAGE, [("**.py", "python")], keywords=KEYWORDS):
        catalog.add(message)
    for text in help_texts(cli, click.Context(cli, info_name="pplc")):
        catalog.add(text)
    return catalog


def help_texts(command: click.Command, context: click.Context) -> Iterator[str]:
    """The help of a command, of its options and of its sub-commands."""
    yield from help_of(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from help_texts(child, context)


def translated(found: Catalog, known: Catalog) -> Catalog:
    """The messages found, with the translations known."""
    result = Catalog(locale="zh")
    for message in found:
        if message.id:
            old = known.get(message.id if isinstance(message.id, str) else message.id[0])
            result.add(message.id, old.string if old else "")
    return result


def po_text(catalog: Catalog) -> str:
    """A catalogue as the text of a .po file: one line an entry, so that changes are easy to read."""
    lines = [HEADER]
    for message in catalog:
        if not message.id:
            continue
        if isinstance(message.id, str):
            lines.append(f"msgid {_quoted(message.id)}\nmsgstr {_quoted(str(message.string))}\n")
        else:
            form = message.string if isinstance(message.string, str) else message.string[0]
            singular, plural = message.id
            lines.append(
                f"msgid {_quoted(singular)}\nmsgid_plural {_quoted(plural)}\nmsgstr[0] {_quoted(form or '')}\n"
            )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t").replace("\b", "\\b")
    return '"' + escaped.replace("\n", "\\n") + '"'


def is_compiled(catalog: Catalog, mo: Path) -> bool:
    """Whether a .mo file has the messages of a catalogue; its header also has a date and Babel's version."""
    return mo.exists() and _texts(read_mo(io.BytesIO(mo.read_bytes()))) == _texts(catalog)


def _texts(catalog: Catalog) -> dict[str, str]:
    """The translations by their messages."""
    given = [message for message in catalog if message.id and message.string]
    return {_first(message.id): _first(message.string) for message in given}


def _first(forms: Union[str, Sequence[str]]) -> str:
    return forms if isinstance(forms, str) else forms[0]


def compile_messages(catalog: Catalog, mo: Path) -> None:
    """Write a catalogue as a .mo file."""
    binary = io.BytesIO()
    write_mo(binary, catalog)
    mo.write_bytes(binary.getvalue())


def incomplete(catalog: Catalog) -> list[Message]:
    """Messages without a translation, or whose translation has other placeholders."""
    return [message for message in catalog if message.id and not _is_complete(message)]


def _is_complete(message: Message) -> bool:
    original = message.id if isinstance(message.id, str) else message.id[-1]
    string = message.string if isinstance(message.string, str) else "".join(message.string)
    return bool(string) and _placeholders(string) == _placeholders(original)


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{[^{}]*\}", text))


def main() -> None:
    """Update, or with --check compare, the catalogues of all languages."""
    parser = argparse.ArgumentParser(description="Collect messages and compile their translations.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if something is to be done")
    check = parser.parse_args().check
    problems = []
    for po in sorted(CATALOGUES.glob("*/LC_MESSAGES/*.po")):
        known = read_po(io.BytesIO(po.read_bytes()), locale=po.parts[-3])
        catalog = translated(collect(), known) if po.stem == "pplc_cli" else known
        text = po_text(catalog) if catalog is not known else po.read_text("utf-8")
        mo = po.with_suffix(".mo")
        outdated = po.read_text("utf-8") != text or not is_compiled(catalog, mo)
        if outdated and check:
            problems.append(f"{po} or its .mo file is out of date; run python scripts/update_messages.py")
        elif outdated:
            write_text(po, text)
            compile_messages(catalog, mo)
        problems += [
            f"{po}: translation missing or with other placeholders: {each.id!r}" for each in incomplete(catalog)
        ]
    print("\n".join(problems[:20]) or "All messages are translated.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
