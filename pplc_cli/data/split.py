"""Split a data set into training, validation and test lists."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Optional

from pplc_cli.base.errors import DataError, ImageError, ImageMemoryError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.schema import did_you_mean, expect_type
from pplc_cli.base.storage.files import PathLike, quoted, user_path
from pplc_cli.base.text import plain
from pplc_cli.data.decode import inspect_image
from pplc_cli.data.image_files import SUFFIXES, is_image_name, list_files, read_bytes
from pplc_cli.data.lists import LIST_FORMATS, existing_lists, write_lists
from pplc_cli.data.lists.assign import CheckedImage, count_images, divide
from pplc_cli.data.lists.fixes import Fixes
from pplc_cli.data.lists.folders import find_layout, require_classes
from pplc_cli.data.lists.parts import PARTS, part_of
from pplc_cli.data.lists.rows import locate, read_rows, with_suffix
from pplc_cli.data.lists.tables import Columns
from pplc_cli.data.settings import SplitConfig


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """The result of a split.

    Attributes:
        labels: class names in the order of their ids.
        counts: maps each part to its number of images per class.
        left_out: maps the relative path of each unused file or folder to the reason.
        relabelled: number of images that got another class.
        notes: maps the relative path of an unusual but usable image to a remark.
        duplicates: the number of files that are copies of another file.
        conflicts: pairs of files with equal content in different classes.
        leaks: pairs of files with equal content in different parts, if the data set came in parts.
        parts: maps train, val and test to the folders, or the table, that were taken as this part of the data set.
        files: the files written.
    """

    labels: list[str]
    counts: dict[str, list[int]]
    left_out: dict[str, str]
    relabelled: int
    notes: dict[str, str]
    duplicates: int
    conflicts: list[tuple[str, str]]
    leaks: list[tuple[str, str]]
    parts: dict[str, list[str]]
    files: list[Path]


class _File(NamedTuple):
    """A file to check: its path, its name in the lists, its class id, and the part that it lies in."""

    path: Path
    name: str
    label: int
    part: str = "train"


class _Source(NamedTuple):
    """What folders or a table say: classes, the place of each, files, the places of each part, and what is not used."""

    labels: list[str]
    places: list[str]
    files: list[_File]
    parts: dict[str, list[str]]
    left_out: dict[str, str]


def split_dataset(
    folder: PathLike,
    config: Optional[SplitConfig] = None,
    *,
    lists: Optional[PathLike] = None,
    columns: Optional[Columns] = None,
    fixes: Optional[Fixes] = None,
    force: bool = False,
    progress: Optional[ProgressCallback] = None,
) -> SplitReport:
    """Decode every image of a data set, and write the lists.

    Folders are the classes, or parts of the data set (train, val, test) that hold folders of classes; the parts that
    are missing are cut from train. With ``config.table``, a table has the images and their classes.

    The same images and seed give the same lists on every machine: a hash of seed and path decides, not the order of
    the file system.

    Args:
        folder: the data set.
        config: shares, seed, groups, table and list format.
        lists: the folder to write the lists to; None: the data set.
        columns: the columns of the table.
        fixes: images to leave out, and images with another class.
        force: replace existing lists.
        progress: called with the number of images done and the total.

    Raises:
        TypeError: an argument has another type.
        DataError: there are no classes, a class is empty or would get no training or validation image, or lists exist
            already. Nothing is written.
    """
    expect_type("folder", folder, str, os.PathLike)
    expect_type("config", config, SplitConfig, type(None))
    config = config or SplitConfig()
    root = user_path(folder)
    if not root.is_dir():
        raise DataError(
            tr("{root}: no such folder; expected a folder with one subfolder of images per class", root=root)
        )
    target = root if lists is None else user_path(lists)
    old = existing_lists(target)
    if old and not force:
        raise DataError(
            tr(
                "{target} has lists already ({old}); replace them with --force",
                target=target,
                old=", ".join(p.name for p in old),
            )
        )
    try:
        group = re.compile(config.group) if config.group else None
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            tr("--group {group!r} is not a valid regular expression: {reason}", group=config.group, reason=error)
        ) from None
    _require_writable(target, root)

    source = _from_table(root, user_path(config.table), columns) if config.table else _from_folders(root)
    labels = source.labels
    for label in labels:
        if not _writable_name(label):
            raise DataError(
                tr("{root}: the class name {label!r} cannot be written to a list; rename it", root=root, label=label)
            )

    source, relabelled = _fixed(source, fixes or Fixes())
    images, left_out, notes = _check_images(source.files, progress)
    left_out = {**source.left_out, **left_out}
    _require_images(source, images, left_out)
    parts = divide(images, labels, group, config)

    rows = {part: sorted((image.name, image.label) for image in members) for part, members in parts.items()}
    write_lists(target, labels, rows, config.format)
    chosen = LIST_FORMATS[config.format]
    written = {chosen.labels, *(chosen.parts[part] for part, members in rows.items() if members)}
    _remove([path for path in old if path.name not in written])  # lists of the other format, and an old test list
    by_digest: dict[str, list[CheckedImage]] = defaultdict(list)
    for image in images:
        by_digest[image.digest].append(image)
    copies = [(same[0], other) for same in by_digest.values() for other in same[1:]]
    return SplitReport(
        labels=labels,
        counts={part: count_images(parts[part], len(labels)) for part in PARTS},
        left_out=left_out,
        relabelled=relabelled,
        notes=notes,
        duplicates=len(copies),
        conflicts=[(one.name, other.name) for one, other in copies if one.label != other.label],
        leaks=[(one.name, other.name) for one, other in copies if one.part != other.part],
        parts=source.parts,
        files=existing_lists(target),
    )


def _require_writable(target: Path, root: Path) -> None:
    """Raise an error before hours of decoding if the lists cannot be written."""
    place = next(path for path in (target, *target.resolve().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise DataError(
            tr(
                "{place}: the folder cannot be written to: {reason}; write the lists elsewhere: --lists {elsewhere}",
                place=place,
                reason=error.strerror or error,
                elsewhere=quoted(f"lists/{root.resolve().name}"),
            )
        ) from None


def _from_folders(root: Path) -> _Source:
    """The files of the class folders, of which there must be at least two."""
    layout = find_layout(root)
    require_classes(root, layout)
    left_out = dict(layout.left_out)
    for path in sorted(root.iterdir()):
        if path.is_file() and is_image_name(path) and not path.name.startswith("."):
            left_out[path.name] = tr("is not in a class folder")
    files = [
        _File(path, path.relative_to(root).as_posix(), folder.label, folder.part)
        for folder in layout.folders
        for path in list_files(folder.path, within=root)
    ]
    parts = {part: [p.relative_to(root).as_posix() for p in paths] for part, paths in layout.parts.items()}
    places = {folder.label: str(folder.path) for folder in reversed(layout.folders) if folder.part == "train"}
    return _Source(layout.labels, [places[label] for label in range(len(places))], files, parts, left_out)


def _from_table(root: Path, table: Path, columns: Optional[Columns]) -> _Source:
    """The files that a table names, each once for each class."""
    rows = read_rows(table, root, columns)
    if not rows.is_table:
        raise DataError(
            tr("{table}: expected a table with a header that names a column of paths and one of classes", table=table)
        )
    labels = rows.class_names()
    if len(labels) < 2:
        raise DataError(
            tr(
                "{table}: expected at least two classes, got {names}",
                table=table,
                names=", ".join(labels) or tr("none"),
            )
        )
    has_parts = rows.has_parts()
    files = {}
    for row, label in zip(rows.rows, rows.ids(labels)):
        path, name = locate(root, with_suffix(root, row.name))
        part = part_of(row.part) if has_parts else None
        files[name, label] = _File(path, name, label, part or "train")
    parts = {part: [str(table)] for part in PARTS if any(file.part == part for file in files.values())}
    places = [f"{table}: {label}" for label in labels]
    return _Source(labels, places, list(files.values()), parts if has_parts else {}, {})


def _fixed(source: _Source, fixes: Fixes) -> tuple[_Source, int]:
    """Apply corrections; also return how many images got another class.

    Raises:
        DataError: a correction names an image or a class that does not exist.
    """
    names = {file.name for file in source.files}
    unknown = sorted((fixes.remove | set(fixes.relabel)) - names)
    if unknown:
        raise DataError(
            tr(
                "the corrections name {file}, which the data set does not have{hint}",
                file=unknown[0],
                hint=did_you_mean(unknown[0], sorted(names), tr("names are relative to its folder")),
            )
        )
    for name, label in fixes.relabel.items():
        if label not in source.labels:
            raise DataError(
                tr(
                    "the corrections give {file} the class {label!r}; expected one of {labels}",
                    file=name,
                    label=label,
                    labels=", ".join(source.labels),
                )
            )
    files = [
        file._replace(label=source.labels.index(fixes.relabel[file.name])) if file.name in fixes.relabel else file
        for file in source.files
        if file.name not in fixes.remove
    ]
    excluded = {plain(name): tr("is excluded") for name in sorted(fixes.remove)}
    changed = sum(file.name in fixes.relabel for file in files)
    return source._replace(files=files, left_out={**source.left_out, **excluded}), changed


def _require_images(source: _Source, images: list[CheckedImage], left_out: dict[str, str]) -> None:
    """Raise an error if a class has no usable image to train on."""
    used = {image.label for image in images if image.part == "train"}
    for index, place in enumerate(source.places):
        if index not in used:
            names = [plain(file.name) for file in source.files if file.label == index and file.part == "train"]
            found = [f"{name} {left_out[name]}" for name in names if name in left_out]
            raise DataError(_no_image(place, found))


def _no_image(place: str, left_out: list[str]) -> str:
    """The message for a class all of whose files were left out."""
    if not left_out:
        return tr("{place}: the class has no usable training image; add images or remove the class", place=place)
    if len(left_out) == 1:
        return tr(
            "{place}: the class has no usable training image: {first}; add images or remove the class",
            place=place,
            first=left_out[0],
        )
    return tr(
        "{place}: the class has no usable training image: {first} (and {more:,} more); add images or remove the class",
        place=place,
        first=left_out[0],
        more=len(left_out) - 1,
    )


def _remove(lists: list[Path]) -> None:
    for path in lists:
        try:
            path.unlink()
        except OSError as error:
            raise DataError(
                tr("{path}: the old list cannot be removed: {reason}", path=path, reason=error.strerror or error)
            ) from None


def _check_images(
    files: list[_File], progress: Optional[ProgressCallback]
) -> tuple[list[CheckedImage], dict[str, str], dict[str, str]]:
    """Decode every file; return the images, the reasons to leave files out, and the remarks."""
    images, left_out, notes = [], {}, {}

    def check(file: _File) -> tuple[str, list[str]]:
        try:
            if not _writable_name(file.name):
                raise ImageError(
                    tr("has a name that a list cannot contain (a line break, or bytes that are not UTF-8)")
                )
            data = read_bytes(file.path)
            if not is_image_name(file.path):
                raise ImageError(_why_not_by_name(file.path, data))
            _, kind, oddities = inspect_image(data)
            if SUFFIXES[file.path.suffix.lower()] != kind:
                oddities.append(tr("is a {kind} file in spite of its suffix", kind=kind))
            return hashlib.sha256(data).hexdigest(), oddities
        except ImageMemoryError as error:  # the lists must not depend on the machine's memory
            raise DataError(f"{file.path}: {error}") from None
        except ImageError as error:
            return "", [str(error)]

    with ThreadPoolExecutor(physical_cores()) as pool:
        for done, (file, (digest, remarks)) in enumerate(zip(files, pool.map(check, files)), 1):
            if digest:
                images.append(CheckedImage(file.name, file.label, digest, file.part))
                if remarks:
                    notes[plain(file.name)] = tr("; ").join(remarks)
            else:
                left_out[plain(file.name)] = remarks[0]
            if progress:
                progress(done, len(files))
    return images, left_out, notes


def _why_not_by_name(path: Path, data: bytes) -> str:
    """The reason to leave out a file without the suffix of an image format."""
    suffix = path.suffix
    try:
        kind = inspect_image(data)[1]
    except ImageError:
        if suffix:
            return tr("is not an image: its suffix is {suffix}", suffix=suffix)
        return tr("is not an image: it has no suffix")
    if suffix:
        return tr("is a {kind} image with the suffix {suffix}; rename it to use it", kind=kind, suffix=suffix)
    return tr("is a {kind} image without a suffix; rename it to use it", kind=kind)


def _writable_name(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name == name.strip() and not any(c in name for c in "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029")
