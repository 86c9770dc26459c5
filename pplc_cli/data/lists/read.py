"""Images with their labels, from the lists of a data set."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.lists.files import find_label_file, find_list, lists_folder, split_command
from pplc_cli.data.lists.labels import read_label_file
from pplc_cli.data.lists.rows import (
    ImageList,
    exists_in,
    locate,
    names_files_in,
    possible_paths,
    read_rows,
    with_suffix,
)
from pplc_cli.data.lists.sample import Sample
from pplc_cli.data.lists.tables import Columns, read_table
from pplc_cli.data.lists.text import read_lines
from pplc_cli.data.settings import DataConfig


def read_labels(data: DataConfig) -> list[str]:
    """Read the class names of a data set, in the order of their ids.

    Without a label file, they are those of the training list, if it is a table with class names.

    Raises:
        DataError: the data folder is gone, or the label file is missing, empty, or not valid.
    """
    folder = _folder(data)
    path = find_label_file(data)
    if path is not None:
        return read_label_file(path, folder)
    table = find_list(data, "train")
    if table is not None:
        rows = read_rows(table, folder, _columns(data))
        if rows.is_table and rows.rows:
            return rows.class_names()
    raise DataError(
        tr(
            "{folder}: no labels.txt or label.txt; run: {command}",
            folder=lists_folder(data),
            command=split_command(data),
        )
    )


def read_part(data: DataConfig, part: str, labels: Sequence[str]) -> Optional[list[Sample]]:
    """Read the images of a part; None if the data set has no such list.

    Args:
        data: the data set.
        part: ``train``, ``val`` or ``test``.
        labels: the class names, to check the ids.

    Raises:
        DataError: the data folder is gone, a line is not ``path id``, an id has no class, or the list is empty.
    """
    folder = _folder(data)
    path = find_list(data, part)
    if path is None:
        return None
    samples = _samples(read_rows(path, folder, _columns(data), labels).of_part(part), folder, labels)
    if not samples:
        raise DataError(
            tr("{path}: contains no images; run: {command} --force", path=path, command=split_command(data))
        )
    return samples


def require_part(data: DataConfig, part: str, labels: Sequence[str]) -> list[Sample]:
    """:func:`read_part` for a list that must exist."""
    samples = read_part(data, part, labels)
    if samples is None:
        raise DataError(
            tr(
                "{folder}: no list for {part}; run: {command}",
                folder=lists_folder(data),
                part=part,
                command=split_command(data),
            )
        )
    return samples


def read_image_list(path: Path) -> list[str]:
    """Read the images of a list without their labels, if it has any: lines or a table, relative to the list's folder.

    Raises:
        DataError: the file cannot be read, or its encoding cannot be told.
    """
    lines = read_lines(path, names_files_in(path.parent))
    table = read_table(path, lines, Columns())
    if table is not None:
        return [str(locate(path.parent, with_suffix(path.parent, row.name))[0]) for row in table]
    return [str(locate(path.parent, _image_of(line, path.parent))[0]) for line in lines if line.strip()]


def _image_of(line: str, folder: Path) -> str:
    """The path in a line: the longest part of it that exists, else what stands before a label."""
    paths = list(possible_paths(line))
    existing = (name for name in paths if exists_in(folder, locate(folder, name)[1]))
    has_label = line.strip()[len(paths[1]) :].strip().isdecimal() if len(paths) > 1 else False
    return next(existing, paths[1] if has_label else paths[0])


def read_extra(path: Path, labels: Sequence[str]) -> list[Sample]:
    """Read the images of ``data.extra_list``, whose paths are relative to the list itself.

    The class ids are those of the model that wrote the list. Its report, a JSON file beside the list, has the class
    names; without a report, the ids are those of ``labels``.

    Raises:
        DataError: as in :func:`read_part`, or the list has a class that the data set lacks.
    """
    theirs = _reported_labels(path.with_suffix(".json")) or list(labels)
    samples = _samples(read_rows(path, path.parent, labels=theirs), path.parent, theirs)
    if not samples:
        raise DataError(tr("{path}: contains no images; leave out data.extra_list", path=path))
    unknown = sorted({theirs[sample.label] for sample in samples} - set(labels))
    if unknown:
        raise DataError(
            tr(
                "{path}: has images of {name!r}, which is not a class of the data set: {labels}",
                path=path,
                name=unknown[0],
                labels=", ".join(labels),
            )
        )
    places = {label: number for number, label in enumerate(labels)}
    return [dataclasses.replace(sample, label=places[theirs[sample.label]]) for sample in samples]


def _folder(data: DataConfig) -> Path:
    folder = user_path(data.dir)
    if not folder.is_dir():
        raise DataError(
            tr(
                "{folder}: the folder of the data set is gone; if it was moved, add -o data.dir=NEW_FOLDER",
                folder=data.dir,
            )
        )
    return folder


def _columns(data: DataConfig) -> Columns:
    return Columns(data.path_column, data.label_column)


def _samples(rows: ImageList, folder: Path, labels: Sequence[str]) -> list[Sample]:
    samples = []
    for row, label in zip(rows.rows, rows.ids(labels)):
        file, name = locate(folder, with_suffix(folder, row.name) if rows.is_table else row.name)
        samples.append(Sample(file, label, name))
    return samples


def _reported_labels(report: Path) -> Optional[list[str]]:
    try:
        return [str(row["label"]) for row in json.loads(report.read_text(encoding="utf-8"))["classes"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
