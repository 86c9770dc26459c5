"""Split a folder of class folders into training, validation and test lists."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, plain, user_path
from pplc_cli.data.decode import inspect_image
from pplc_cli.data.image_files import SUFFIXES, is_image_name, list_files, read_bytes
from pplc_cli.data.lists import LIST_FORMATS, class_folders, existing_lists, write_lists
from pplc_cli.data.settings import SplitConfig

PARTS = ("train", "val", "test")
_UNSUPPORTED = {".heic", ".heif", ".avif"}  # image formats of phones; they are not supported


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """The result of a split.

    Attributes:
        labels: class names in the order of their ids.
        counts: maps each part to its number of images per class.
        left_out: maps the relative path of each unused file to the reason.
        notes: maps the relative path of an unusual but usable image to a remark.
        duplicates: the number of files that are copies of another file.
        conflicts: pairs of files with equal content in different classes.
        files: the files written.
    """

    labels: list[str]
    counts: dict[str, list[int]]
    left_out: dict[str, str]
    notes: dict[str, str]
    duplicates: int
    conflicts: list[tuple[str, str]]
    files: list[Path]


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """A usable image: its path relative to the data set, its class id, and the SHA-256 of its bytes."""

    name: str
    label: int
    digest: str


def split_dataset(
    folder: PathLike,
    config: Optional[SplitConfig] = None,
    *,
    force: bool = False,
    progress: Optional[ProgressCallback] = None,
) -> SplitReport:
    """Decode every image of a folder with one subfolder per class, and write the lists.

    The same images and seed give the same lists on every machine: a hash of seed and path decides, not the order of
    the file system.

    Args:
        folder: the data set.
        config: shares, seed, groups and list format.
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
        raise DataError(f"{root}: no such folder; expected a folder with one subfolder of images per class")
    old = existing_lists(root)
    if old and not force:
        raise DataError(f"{root} has lists already ({', '.join(p.name for p in old)}); replace them with --force")
    try:
        group = re.compile(config.group) if config.group else None
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"--group {config.group!r} is not a valid regular expression: {error}") from None
    classes = _find_classes(root)
    labels = [path.name for path in classes]

    images, left_out, notes = _check_images(root, classes, progress)
    _require_images(root, labels, images, left_out)
    parts = assign_parts(group_images(images, group), labels, config)

    rows = {part: sorted((image.name, image.label) for image in members) for part, members in parts.items()}
    write_lists(root, labels, rows, config.format)
    chosen = LIST_FORMATS[config.format]
    written = {chosen.labels, *(chosen.parts[part] for part, members in rows.items() if members)}
    _remove([path for path in old if path.name not in written])  # lists of the other format, and an old test list
    by_digest: dict[str, list[CheckedImage]] = defaultdict(list)
    for image in images:
        by_digest[image.digest].append(image)
    return SplitReport(
        labels=labels,
        counts={part: _counts(parts[part], len(labels)) for part in PARTS},
        left_out=left_out,
        notes=notes,
        duplicates=sum(len(same) - 1 for same in by_digest.values()),
        conflicts=[
            (same[0].name, other.name)
            for same in by_digest.values()
            for other in same[1:]
            if other.label != same[0].label
        ],
        files=existing_lists(root),
    )


def _find_classes(root: Path) -> list[Path]:
    """The class folders: at least two, with names that a list can contain."""
    classes = class_folders(root)
    if not classes:
        raise DataError(f"{root}: has no subfolders; put each class in its own folder")
    if len(classes) < 2:
        raise DataError(f"{root}: has only one class folder, {classes[0].name!r}; expected at least two")
    for path in classes:
        if not _writable_name(path.name):
            raise DataError(f"{root}: the class name {path.name!r} cannot be written to a list; rename the folder")
    return classes


def _require_images(root: Path, labels: list[str], images: list[CheckedImage], left_out: dict[str, str]) -> None:
    """Raise an error if a class has no usable image."""
    used = {image.label for image in images}
    for index, label in enumerate(labels):
        if index not in used:
            found = [f"{name} {reason}" for name, reason in left_out.items() if name.startswith(f"{label}/")]
            why = f": {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") if found else ""
            raise DataError(f"{root / label}: the class has no usable image{why}; add images or remove the folder")


def _remove(lists: list[Path]) -> None:
    for path in lists:
        try:
            path.unlink()
        except OSError as error:
            raise DataError(f"{path}: the old list cannot be removed: {error.strerror or error}") from None


def _check_images(
    root: Path, classes: list[Path], progress: Optional[ProgressCallback]
) -> tuple[list[CheckedImage], dict[str, str], dict[str, str]]:
    """Decode every file of every class; return the images, the reasons to leave files out, and the remarks."""
    files = [(path, label) for label, folder in enumerate(classes) for path in list_files(folder)]
    images, left_out, notes = [], {}, {}
    for path in sorted(root.iterdir()):
        if path.is_file() and is_image_name(path) and not path.name.startswith("."):
            left_out[path.name] = "is not in a class folder"

    def check(item: tuple[Path, int]) -> tuple[str, int, str, list[str]]:
        path, label = item
        name = path.relative_to(root).as_posix()
        try:
            if not _writable_name(name):
                raise ImageError("has a name that a list cannot contain (a line break, or bytes that are not UTF-8)")
            data = read_bytes(path)
            if not is_image_name(path):
                raise ImageError(_why_not_by_name(path, data))
            _, kind, oddities = inspect_image(data)
            if SUFFIXES[path.suffix.lower()] != kind:
                oddities.append(f"is a {kind} file in spite of its suffix")
            return name, label, hashlib.sha256(data).hexdigest(), oddities
        except ImageError as error:
            return name, label, "", [str(error)]

    with ThreadPoolExecutor(physical_cores()) as pool:
        for done, (name, label, digest, remarks) in enumerate(pool.map(check, files), 1):
            shown = plain(name)
            if digest:
                images.append(CheckedImage(name, label, digest))
                if remarks:
                    notes[shown] = "; ".join(remarks)
            else:
                left_out[shown] = remarks[0]
            if progress:
                progress(done, len(files))
    return images, left_out, notes


def _why_not_by_name(path: Path, data: bytes) -> str:
    """The reason to leave out a file without the suffix of an image format."""
    suffix = path.suffix
    try:
        kind = inspect_image(data)[1]
    except ImageError:
        if suffix.lower() in _UNSUPPORTED:
            return f"has the format {suffix[1:].upper()}, which is not supported; convert it to JPEG"
        return f"is not an image: its suffix is {suffix}" if suffix else "is not an image: it has no suffix"
    return f"is a {kind} image {f'with the suffix {suffix}' if suffix else 'without a suffix'}; rename it to use it"


def _writable_name(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name == name.strip() and not any(c in name for c in "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def group_images(images: list[CheckedImage], group: Optional[re.Pattern[str]]) -> list[list[CheckedImage]]:
    """Group images with equal content or equal group text (the first group of the pattern, or the whole match)."""
    parent = list(range(len(images)))

    def root_of(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, image in enumerate(images):
        keys = [("content", image.digest)]
        match = group.search(image.name) if group else None
        text = match.group(1 if match.re.groups else 0) if match else None
        if text is not None:
            keys.append(("group", text))
        for key in keys:
            parent[root_of(index)] = root_of(first.setdefault(key, index))
    members = defaultdict(list)
    for index, image in enumerate(images):
        members[root_of(index)].append(image)
    return list(members.values())


def _counts(images: list[CheckedImage], classes: int) -> list[int]:
    found = Counter(image.label for image in images)
    return [found[index] for index in range(classes)]


def assign_parts(
    components: list[list[CheckedImage]], labels: list[str], config: SplitConfig
) -> dict[str, list[CheckedImage]]:
    """Fill test, then val, with int(share x images) of every class; the rest is for training.

    Large components come first, since small ones still fit later. A component goes to the first part in which all of
    its classes have room.
    """
    total = _counts([p for c in components for p in c], len(labels))
    # 1e-9 corrects rounding: 0.29 x 100 is 28.999...
    room = {part: [int(n * getattr(config, part) + 1e-9) for n in total] for part in ("test", "val")}
    parts: dict[str, list[CheckedImage]] = {part: [] for part in PARTS}
    waiting = []

    def order(component: list[CheckedImage]) -> tuple[int, str]:
        text = f"{config.seed}\0{min(p.name for p in component)}"
        return -len(component), hashlib.sha256(text.encode()).hexdigest()

    for component in sorted(components, key=order):
        need = Counter(p.label for p in component)
        for part in ("test", "val"):
            if all(n <= room[part][i] for i, n in need.items()):
                parts[part] += component
                for i, n in need.items():
                    room[part][i] -= n
                break
        else:
            waiting.append(component)
    for index in range(len(labels)):
        # If every group is larger than the share, the smallest one becomes the validation part of the class.
        if total[index] * config.val >= 1 and not any(p.label == index for p in parts["val"]):
            fitting = [c for c in waiting if any(p.label == index for p in c)]
            if len(fitting) > 1:
                smallest = min(reversed(fitting), key=len)
                waiting.remove(smallest)
                parts["val"] += smallest
    for component in waiting:
        parts["train"] += component
    for index, label in enumerate(labels):
        for part, words in (("train", "training"), ("val", "validation")):
            if not any(p.label == index for p in parts[part]):
                groups = sum(any(p.label == index for p in c) for c in components)
                raise DataError(
                    f"class {label!r} would get no {words} image: it has {_described(total[index], groups)}, and the "
                    f"shares are val {config.val:g} and test {config.test:g}; add images or change --val and --test. "
                    "Nothing was written."
                )
    return parts


def _described(images: int, groups: int) -> str:
    """The number of images and, if some stay together, of groups, as in "5 images in 2 groups that stay together"."""
    text = f"{images} image{'' if images == 1 else 's'}"
    return f"{text} in {groups} group{'' if groups == 1 else 's'} that stay together" if groups < images else text
