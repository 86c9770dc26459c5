"""Cut a folder of classes into training, validation and test lists."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.files import PathLike, user_path
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.data.decode import inspect_image
from pplc_cli.data.image_files import SUFFIXES, is_image_name, list_files, read_bytes
from pplc_cli.data.lists import FORMATS, class_folders, existing_lists, write_lists
from pplc_cli.data.settings import SplitConfig

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class SplitReport:
    """What a split found and wrote.

    Attributes:
        labels: class names in the order of their ids.
        counts: part to images of each class.
        left_out: relative path to the reason.
        notes: relative path to what is odd about an image that is used all the same.
        duplicates: how many files have the content of another one.
        conflicts: files of equal content in different classes.
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
class _Image:
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
    """Decode every image of a folder with one folder a class, and write the lists.

    The same images and seed give the same lists on every machine: what decides is a hash of seed and path, not the
    order of the file system.

    Args:
        folder: the data set.
        config: shares, seed, groups and list format.
        force: replace lists that are there.
        progress: called with images done and images in all.

    Raises:
        DataError: no classes, an empty class, a class that would get no training or validation image, or lists that
            are there already. Nothing is written then.
    """
    config = config or SplitConfig()
    root = user_path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one with a folder of images for each class")
    there = existing_lists(root)
    if there and not force:
        raise DataError(f"{root} is split already ({', '.join(p.name for p in there)}); --force replaces these lists")
    try:
        group = re.compile(config.group) if config.group else None
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"--group {config.group!r} is no regular expression: {error}") from None
    classes = class_folders(root)
    if not classes:
        raise DataError(f"{root}: has no folders; expected one folder of images for each class")
    if len(classes) < 2:
        raise DataError(f"{root}: has only the class {classes[0].name!r}; expected at least two folders of classes")
    labels = [path.name for path in classes]
    for label in labels:
        if not _writable_name(label):
            raise DataError(f"{root}: the class name {label!r} cannot be written to a list; rename the folder")

    images, left_out, notes = _check_images(root, classes, progress)
    used = {image.label for image in images}
    for index, label in enumerate(labels):
        if index not in used:
            found = [f"{name} {reason}" for name, reason in left_out.items() if name.startswith(f"{label}/")]
            why = f": {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") if found else ""
            raise DataError(f"{root / label}: the class has no usable image{why}; add some or remove the folder")

    components = _components(images, group)
    parts = _assign(components, labels, config)
    rows = {part: sorted((image.name, image.label) for image in members) for part, members in parts.items()}
    write_lists(root, labels, rows, config.format)
    chosen = FORMATS[config.format]
    written = {chosen.labels, *(chosen.parts[part] for part, members in rows.items() if members)}
    for path in there:  # a list of the other format, or an old test list, must not outlive its split
        if path.name not in written:
            try:
                path.unlink()
            except OSError as error:
                raise DataError(f"{path}: the old list cannot be removed: {error.strerror or error}") from None
    by_digest: dict[str, list[_Image]] = defaultdict(list)
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


def _check_images(
    root: Path, classes: list[Path], progress: Optional[ProgressCallback]
) -> tuple[list[_Image], dict[str, str], dict[str, str]]:
    """Really decode every file of every class."""
    files = [(path, label) for label, folder in enumerate(classes) for path in list_files(folder)]
    images, left_out, notes = [], {}, {}
    for path in sorted(root.iterdir()):
        if path.is_file() and is_image_name(path) and not path.name.startswith("."):
            left_out[path.name] = "lies beside the class folders, not in one"

    def check(item: tuple[Path, int]) -> tuple[str, int, str, list[str]]:
        path, label = item
        name = path.relative_to(root).as_posix()
        try:
            if not _writable_name(name):
                raise ImageError("has a name that no list can hold (a line break, or bytes that are no UTF-8)")
            data = read_bytes(path)
            if not is_image_name(path):
                raise ImageError(_why_not_by_name(path, data))
            _, kind, oddities = inspect_image(data)
            if SUFFIXES[path.suffix.lower()] != kind:
                oddities.append(f"is a {kind} file by another name")
            return name, label, hashlib.sha256(data).hexdigest(), oddities
        except ImageError as error:
            return name, label, "", [str(error)]

    with ThreadPoolExecutor(physical_cores()) as pool:
        for done, (name, label, digest, remarks) in enumerate(pool.map(check, files), 1):
            shown = name.encode("utf-8", "backslashreplace").decode("utf-8")
            if digest:
                images.append(_Image(name, label, digest))
                if remarks:
                    notes[shown] = "; ".join(remarks)
            else:
                left_out[shown] = remarks[0]
            if progress:
                progress(done, len(files))
    return images, left_out, notes


def _why_not_by_name(path: Path, data: bytes) -> str:
    """A file whose suffix is no image's is left out; where its content is one, the user should know."""
    try:
        kind = inspect_image(data)[1]
    except ImageError:
        return f"is no image by its name ({path.suffix or 'no suffix'})"
    return f"is a {kind} image, but named {path.suffix or 'without a suffix'}; rename it to have it used"


def _writable_name(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return name == name.strip() and not any(c in name for c in "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def _components(images: list[_Image], group: Optional[re.Pattern[str]]) -> list[list[_Image]]:
    """Images that must stay together: equal content, or equal group (the first parenthesis, else the whole match)."""
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


def _counts(images: list[_Image], classes: int) -> list[int]:
    found = Counter(image.label for image in images)
    return [found[index] for index in range(classes)]


def _assign(components: list[list[_Image]], labels: list[str], config: SplitConfig) -> dict[str, list[_Image]]:
    """Fill test, then val, to int(share x images) of every class; the rest trains.

    Large components go first, since small ones still fit where they do not; a component goes where its classes lack
    most, and only where all of its classes have room.
    """
    total = _counts([p for c in components for p in c], len(labels))
    # The smallest amount keeps 0.29 x 100 from being 28.999...
    room = {part: [int(n * getattr(config, part) + 1e-9) for n in total] for part in ("test", "val")}
    parts: dict[str, list[_Image]] = {part: [] for part in PARTS}
    waiting = []

    def order(component: list[_Image]) -> tuple[int, str]:
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
        # Groups larger than the share fit nowhere; the smallest one then makes the class's validation part.
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
                kept = f" in {groups} groups that stay together" if groups < total[index] else ""
                raise DataError(
                    f"class {label!r} would get no {words} image: it has {total[index]}{kept}, "
                    f"with val {config.val:g} and test {config.test:g}; "
                    "add images or change --val and --test. Nothing was written."
                )
    return parts
