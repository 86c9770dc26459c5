"""The names of list and label files, as PaddleX 2.x and 3.x have them; writing and finding them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from pplc_cli.base.storage.files import atomic_file, quoted, user_path
from pplc_cli.data.settings import DataConfig


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
_LABELS = (*(chosen.labels for chosen in LIST_FORMATS.values()), "label_list.txt")  # the last is PaddleClas's


def write_lists(folder: Path, labels: Sequence[str], parts: dict[str, list[tuple[str, int]]], format_name: str) -> None:
    """Write the label file and the lists, all or none; a part without images gets no list.

    Args:
        folder: the folder to write to.
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
    return [folder / name for name in names if os.path.exists(folder / name)]  # noqa: PTH110 - never raises


def lists_folder(data: DataConfig) -> Path:
    """The folder of a data set's lists: ``data.lists``, else the data folder itself."""
    return user_path(data.lists or data.dir)


def find_label_file(data: DataConfig) -> Optional[Path]:
    """The label file that the configuration names, else that in the folder of the lists, if there is one."""
    return user_path(data.labels) if data.labels else _first(lists_folder(data), _LABELS)


def find_list(data: DataConfig, part: str) -> Optional[Path]:
    """The list of train, val or test that the configuration names, else that in the folder of the lists."""
    explicit: Optional[str] = getattr(data, f"{part}_list")
    names = [chosen.parts[part] for chosen in LIST_FORMATS.values()]
    return user_path(explicit) if explicit else _first(lists_folder(data), names)


def split_command(data: DataConfig) -> str:
    """The command that writes the lists of a data set."""
    elsewhere = f" --lists {quoted(data.lists)}" if data.lists else ""
    return f"pplc split --dataset {quoted(data.dir)}{elsewhere}"


def _first(folder: Path, names: Sequence[str]) -> Optional[Path]:
    return next((folder / name for name in names if (folder / name).is_file()), None)
