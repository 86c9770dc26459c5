"""Images with their labels: from the lists of PaddleX 2.x and 3.x, which are also written here, or from folders."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional, TypeVar

import numpy as np

from pplc_cli.base.errors import DataError
from pplc_cli.base.schema import did_you_mean
from pplc_cli.base.storage.files import atomic_file, quoted, user_path
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.settings import DataConfig

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image and its class.

    Attributes:
        path: the file.
        label: the class id, 0-based.
        name: the file's name in the list, with forward slashes.
    """

    path: Path
    label: int
    name: str


@dataclasses.dataclass(frozen=True)
class ListFormat:
    """The file names of PaddleX 2.x or 3.x, and whether the label file numbers the class names."""

    labels: str
    parts: dict[str, str]
    numbered: bool


LIST_FORMATS = {
    "paddlex2": ListFormat(
        "labels.txt",
        {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"},
        numbered=False,
    ),
    "paddlex3": ListFormat("label.txt", {"train": "train.txt", "val": "val.txt", "test": "test.txt"}, numbered=True),
}


def write_lists(folder: Path, labels: Sequence[str], parts: dict[str, list[tuple[str, int]]], format_name: str) -> None:
    """Write the label file and the lists, all or none; a part without images gets no list.

    Args:
        folder: the data set's folder.
        labels: class names in the order of their ids.
        parts: maps train, val and test to pairs (relative path, class id).
        format_name: ``paddlex2`` or ``paddlex3``.
    """
    chosen = LIST_FORMATS[format_name]
    names = [f"{i} {name}" if chosen.numbered else name for i, name in enumerate(labels)]
    texts = {chosen.labels: "".join(f"{name}\n" for name in names)}
    for part, rows in parts.items():
        if rows:
            texts[chosen.parts[part]] = "".join(f"{name} {label}\n" for name, label in rows)
    with contextlib.ExitStack() as stack:
        for file, text in texts.items():
            stack.enter_context(atomic_file(folder / file)).write_bytes(text.encode("utf-8"))


def existing_lists(folder: Path) -> list[Path]:
    """The list and label files of either format that exist in a folder."""
    names = [name for chosen in LIST_FORMATS.values() for name in (chosen.labels, *chosen.parts.values())]
    return [folder / name for name in names if (folder / name).exists()]


def read_labels(data: DataConfig) -> list[str]:
    """Read the class names of a data set, in the order of their ids.

    Raises:
        DataError: the label file is missing, empty, or has duplicate names.
    """
    path = user_path(data.labels) if data.labels else _find(data, [f.labels for f in LIST_FORMATS.values()])
    if path is None:
        raise DataError(f"{data.dir}: no labels.txt or label.txt; run: pplc split --dataset {quoted(data.dir)}")
    names = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: contains no class names")
    numbers = [name.split(None, 1) for name in names]
    if [pair[0] for pair in numbers] == [str(i) for i in range(len(names))] and all(len(p) == 2 for p in numbers):
        # PaddleClas and PaddleX 3 write "0 cat"; in labels.txt this may also be the name of a class folder.
        in_full = path.name == LIST_FORMATS["paddlex2"].labels and all((path.parent / name).is_dir() for name in names)
        names = names if in_full else [pair[1] for pair in numbers]
    if len(set(names)) != len(names):
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{path}: duplicate class names: {', '.join(doubled)}")
    return names


def read_part(data: DataConfig, part: str, labels: Sequence[str]) -> Optional[list[Sample]]:
    """Read the images of a part; None if the data set has no such list.

    Args:
        data: the data set.
        part: ``train``, ``val`` or ``test``.
        labels: the class names, to check the ids.

    Raises:
        DataError: a line is not ``path id``, an id has no class, or the list is empty.
    """
    explicit = getattr(data, f"{part}_list")
    path = user_path(explicit) if explicit else _find(data, [f.parts[part] for f in LIST_FORMATS.values()])
    if path is None:
        return None
    samples = _parse(path, user_path(data.dir), labels)
    if not samples:
        raise DataError(f"{path}: contains no images; run: pplc split --dataset {quoted(data.dir)} --force")
    return samples


def read_extra(path: Path, labels: Sequence[str]) -> list[Sample]:
    """Read the images of ``data.extra_list``, whose paths are relative to the list itself.

    The class ids are those of the model that wrote the list. Its report, a JSON file beside the list, has the class
    names; without a report, the ids are those of ``labels``.

    Raises:
        DataError: as in :func:`read_part`, or the list has a class that the data set lacks.
    """
    theirs = _reported_labels(path.with_suffix(".json")) or list(labels)
    samples = _parse(path, path.parent, theirs)
    if not samples:
        raise DataError(f"{path}: contains no images; leave out data.extra_list")
    unknown = sorted({theirs[sample.label] for sample in samples} - set(labels))
    if unknown:
        raise DataError(
            f"{path}: has images of {unknown[0]!r}, which is not a class of the data set: {', '.join(labels)}"
        )
    places = {label: number for number, label in enumerate(labels)}
    return [dataclasses.replace(sample, label=places[theirs[sample.label]]) for sample in samples]


def _reported_labels(report: Path) -> Optional[list[str]]:
    try:
        return [str(row["label"]) for row in json.loads(report.read_text(encoding="utf-8"))["classes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parse(path: Path, folder: Path, labels: Sequence[str]) -> list[Sample]:
    samples = []
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if "\t" in line:
            name, _, label = line.strip().rpartition("\t")
        name = name.strip()
        if not name or not label.isdecimal() or len(label) > 9:
            raise DataError(f"{path}, line {number}: expected a path, a space and a class id, got {line.strip()!r}")
        if int(label) >= len(labels):
            raise DataError(
                f"{path}, line {number}: class id {label}, but there are only {len(labels)} classes "
                f"(0 to {len(labels) - 1})"
            )
        # Lists written on Windows have backslashes, but a file name may also contain one.
        file = folder / name
        if "\\" in name and not os.path.exists(file):  # noqa: PTH110 - pathlib raises for long names
            name = name.replace("\\", "/")
            file = folder / name
        samples.append(Sample(file, int(label), name))
    return samples


def require_part(data: DataConfig, part: str, labels: Sequence[str]) -> list[Sample]:
    """:func:`read_part` for a list that must exist."""
    samples = read_part(data, part, labels)
    if samples is None:
        raise DataError(f"{data.dir}: no list for {part}; run: pplc split --dataset {quoted(data.dir)}")
    return samples


def list_unlabelled(folder: Path) -> list[Sample]:
    """List all images below a folder, with label -1.

    Raises:
        DataError: there are none.
    """
    samples = [Sample(f, -1, f.relative_to(folder).as_posix()) for f in list_files(folder) if is_image_name(f)]
    if not samples:
        raise DataError(f"{folder}: contains no images")
    return samples


def read_class_folders(folder: Path, labels: Sequence[str]) -> list[Sample]:
    """List the images of a folder with one subfolder per class; labels are matched by name, not by position.

    Raises:
        DataError: a subfolder is not a class of the model, or there are no images.
    """
    classes = class_folders(folder)
    if not classes:
        raise DataError(f"{folder}: has no subfolders; expected one per class: {', '.join(labels)}")
    unknown = [path.name for path in classes if path.name not in labels]
    if unknown:
        raise DataError(
            f"{folder}: the folder {unknown[0]!r} is not a class of this model{did_you_mean(unknown[0], labels)}"
        )
    samples = [
        Sample(file, list(labels).index(path.name), file.relative_to(folder).as_posix())
        for path in classes
        for file in list_files(path)
        if is_image_name(file)
    ]
    if not samples:
        raise DataError(f"{folder}: its class folders contain no images")
    return samples


def class_folders(folder: Path) -> list[Path]:
    """The class folders, sorted by name; hidden folders are not classes.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read: {error.strerror or error}") from None


def count_by_class(samples: Iterable[Sample], classes: int) -> list[int]:
    """Count the images of each class."""
    counts = [0] * classes
    for sample in samples:
        counts[sample.label] += 1
    return counts


def _find(data: DataConfig, names: Iterable[str]) -> Optional[Path]:
    folder = user_path(data.dir)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    for encoding in ("utf-8-sig", "gb18030"):  # the encoding of Chinese Windows
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: is not UTF-8 text")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most ``count`` evenly spaced items, including the first and the last."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
