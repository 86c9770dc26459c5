"""What ``pplc weights`` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplc_cli.base.files import quoted
from pplc_cli.models.weights.importing import Imported
from pplc_cli.models.weights.inventory import CachedWeights, VerifyResult


def print_list(files: list[CachedWeights], folder: Path, as_json: bool) -> None:
    """A line for each file that is in the cache or could be."""
    if as_json:
        print(json.dumps([dataclasses.asdict(file) for file in files], ensure_ascii=False, indent=2))
        return
    table = Table("network", "source", "cached", "file")
    for column in table.columns[:3]:
        column.no_wrap = True
    table.columns[3].overflow = "fold"  # a name that is cut short is of no use
    for file in files:
        size = "yes" if file.size is None else f"{file.size / 1e6:.1f} MB"
        table.add_row(file.network, file.source, size if file.cached else "no", Text(file.file))
    Console(highlight=False).print(table)
    print(f"{_files(sum(file.cached for file in files))} in {folder}")


def print_verified(files: Iterable[VerifyResult], folder: Path) -> int:
    """A line for each file as it is checked.

    Returns:
        How many are damaged or missing.
    """
    states = []
    for file in files:
        print(f"{file.state}: {file.remark or file.file}", flush=True)
        states.append(file.good)
    bad = states.count(False)
    print(f"{_files(len(states))} of {folder} checked: {bad or 'none'} damaged or missing")
    return bad


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def print_imported(imported: Imported, path: Path) -> None:
    """What it is, and the words to train with it."""
    classes = imported.arrays.get(f"{imported.spec.classifier}.bias")
    of = "" if classes is None else f" for {len(classes)} classes"
    print(f"{path} written: {imported.spec.name}{of}, {len(imported.arrays)} arrays")
    print(f"pplc train --dataset NAME {train_words(imported, path)}")


def train_words(imported: Imported, path: Path) -> str:
    """The options of ``pplc train`` that start from imported weights."""
    words = [f"--model {imported.spec.name}", f"--pretrained {quoted(str(path))}"]
    words += [_option(f"model.options.{key}", value) for key, value in imported.options_set().items()]
    return " ".join(words)


def _option(key: str, value: Any) -> str:
    text = f"{key}={value if isinstance(value, str) else json.dumps(value)}"
    return f'-o "{text}"' if isinstance(value, list) else f"-o {text}"
