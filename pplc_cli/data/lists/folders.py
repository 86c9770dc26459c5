"""Images with their labels, from folders: one per class, in the data set itself or in its parts train, val and test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists.files import existing_lists
from pplc_cli.data.lists.parts import is_part_name, part_of
from pplc_cli.data.lists.sample import Sample

_DEPTH = 5  # folders that an archive may put around its content
_OF_RUNS = ("config.yaml", "train_log.jsonl", "preview.png")


@dataclasses.dataclass(frozen=True)
class ClassFolder:
    """A folder with images of one class.

    Attributes:
        path: the folder.
        label: the class id.
        part: the list of its images: train, val or test.
    """

    path: Path
    label: int
    part: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the folders of a data set lie.

    Attributes:
        labels: the class names in sorted order.
        folders: the class folders.
        parts: maps train, val and test to their folders; empty if the class folders lie in the data set itself.
        left_out: maps the relative path of each folder that is not used to the reason.
    """

    labels: list[str]
    folders: list[ClassFolder]
    parts: dict[str, list[Path]]
    left_out: dict[str, str]


def find_layout(root: Path) -> Layout:
    """Find the class folders of a data set.

    Folders train, val and test, under any usual name, are parts of a data set if they hold class folders. They may lie
    deeper, as in ROOT/images/train. Folders that pplc writes to are not classes.

    Raises:
        DataError: a folder cannot be read, or the parts do not fit together.
    """
    base = root
    for _ in range(_DEPTH):
        folders = [path for path in class_folders(base) if _holds_images(path)]
        parts = _find_parts(base, folders)
        if parts:
            return _layout_of_parts(root, parts, [path for path in folders if path not in chain(*parts.values())])
        if len(folders) != 1 or _images_in(base):
            break
        base = folders[0]
    found = class_folders(root)
    return Layout(
        labels=[path.name for path in found],
        folders=[ClassFolder(path, label, "train") for label, path in enumerate(found)],
        parts={},
        left_out={path.name: tr("is a folder of pplc") for path in _subfolders(root) if _is_of_pplc(path)},
    )


def require_classes(root: Path, layout: Layout) -> None:
    """Raise an error if there are fewer than two classes."""
    if not layout.labels:
        raise DataError(tr("{root}: has no subfolders; put each class in its own folder", root=root))
    if len(layout.labels) == 1:
        only = layout.folders[0].path
        if len(class_folders(only)) > 1:
            raise DataError(
                tr(
                    "{root}: has only one class folder, {name!r}; if the folders in it are the classes, name "
                    "{only} in place of the folder above",
                    root=root,
                    name=only.name,
                    only=only,
                )
            )
        raise DataError(
            tr("{root}: has only one class folder, {name!r}; expected at least two", root=root, name=only.name)
        )


def class_folders(folder: Path) -> list[Path]:
    """The class folders, sorted by name; hidden folders and those that pplc writes to are not classes.

    Raises:
        DataError: the folder cannot be read.
    """
    return [path for path in _subfolders(folder) if not _is_of_pplc(path)]


def read_class_folders(folder: Path, labels: Sequence[str]) -> list[Sample]:
    """List the images of a folder with one subfolder per class; labels are matched by name, not by position.

    Raises:
        DataError: a subfolder is not a class of the model, or there are no images.
    """
    classes = class_folders(folder)
    if not classes:
        raise DataError(
            tr("{folder}: has no subfolders; expected one per class: {labels}", folder=folder, labels=", ".join(labels))
        )
    unknown = [path.name for path in classes if path.name not in labels]
    parts = find_layout(folder).parts if unknown else {}
    if parts:
        raise DataError(
            tr(
                "{folder}: is divided into parts; name the folder of one of them: {parts}",
                folder=folder,
                parts=", ".join(str(path) for paths in parts.values() for path in paths),
            )
        )
    if unknown:
        raise DataError(
            tr(
                "{folder}: the folder {name!r} is not a class of this model{hint}",
                folder=folder,
                name=unknown[0],
                hint=did_you_mean(unknown[0], labels),
            )
        )
    ids = {label: number for number, label in enumerate(labels)}
    samples = [
        Sample(file, ids[path.name], file.relative_to(folder).as_posix())
        for path in classes
        for file in list_files(path)
        if is_image_name(file)
    ]
    if not samples:
        raise DataError(tr("{folder}: its class folders contain no images", folder=folder))
    return samples


def list_unlabelled(folder: Path) -> list[Sample]:
    """List all images below a folder, with label -1.

    Raises:
        DataError: there are none.
    """
    samples = [Sample(f, -1, f.relative_to(folder).as_posix()) for f in list_files(folder) if is_image_name(f)]
    if not samples:
        raise DataError(tr("{folder}: contains no images", folder=folder))
    return samples


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)
    except OSError as error:
        raise DataError(
            tr("{folder}: the folder cannot be read: {reason}", folder=folder, reason=error.strerror or error)
        ) from None


def _is_of_pplc(folder: Path) -> bool:
    """Whether a folder within a data set holds what pplc writes: configurations, runs or lists."""
    if folder.name == "configs":
        return any(folder.glob("*.y*ml")) and not _holds_images(folder)
    if folder.name == "output":
        runs = _subfolders(folder)
        return not _images_in(folder) and any((run / name).exists() for run in runs for name in _OF_RUNS)
    return bool(existing_lists(folder)) and not _holds_images(folder)


def _holds_images(folder: Path) -> bool:
    return any(map(is_image_name, list_files(folder)))


def _images_in(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(is_image_name(path) and path.is_file() for path in folder.iterdir())


def _classes_in(folder: Path) -> list[Path]:
    """The class folders of a part, which may lie in one more folder, as in train/images/cat."""
    for _ in range(_DEPTH):
        if _images_in(folder):
            return []
        classes = [path for path in class_folders(folder) if _holds_images(path)]
        if len(classes) != 1:
            return classes
        inner = [path for path in class_folders(classes[0]) if _holds_images(path)]
        if _images_in(classes[0]) or not inner:
            return classes
        folder = classes[0]
    return []


def _find_parts(base: Path, folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The parts among the folders that hold images; empty if they are classes.

    Since "test" may be one class among others, all folders must have names of parts and nothing else, or train and
    another part must hold folders of the same names, which the remaining folders do not.
    """
    parts: dict[str, list[Path]] = {}
    for path in folders:
        parts.setdefault(part_of(path.name) or "", []).append(path)
    others = parts.pop("", [])
    if not parts:
        return {}
    classes = {path: {sub.name for sub in _classes_in(path)} for path in folders}
    of_train = set().union(*(classes[path] for path in parts.get("train", [])))
    if others or not all(is_part_name(path.name) for path in folders):
        shared = any(classes[path] & of_train for part in ("val", "test") for path in parts.get(part, []))
        return parts if shared and not any(classes[path] & of_train for path in others) else {}
    if len(parts) > 1 and not of_train:
        expected = f"{parts['train'][0].name}/CLASS/1.jpg" if "train" in parts else "train/CLASS/1.jpg"
        raise DataError(
            tr(
                "{base}: the folders {folders} look like parts of a data set, but there are no training "
                "images in folders of classes; expected images as in {example}, or --table FILE",
                base=base,
                folders=", ".join(path.name for path in folders),
                example=expected,
            )
        )
    return parts if len(of_train) > 1 else {}


def _layout_of_parts(root: Path, parts: dict[str, list[Path]], others: Sequence[Path]) -> Layout:
    classes = {path: _classes_in(path) for folders in parts.values() for path in folders}
    labels = sorted({sub.name for path in parts["train"] for sub in classes[path]})
    left_out = {_relative(path, root): tr("is not a part of the data set") for path in others}
    used: dict[str, list[Path]] = {}
    folders = []
    for part, paths in parts.items():
        for path in paths:
            names = [sub.name for sub in classes[path]]
            unknown = [name for name in names if name not in labels]
            if len(unknown) == len(names):  # images of a competition, whose labels are secret
                left_out[_relative(path, root)] = tr("holds no folders of the classes")
                continue
            if unknown:
                raise DataError(
                    tr(
                        "{path}: the class {name!r} has no folder of training images in {train}{hint}",
                        path=path,
                        name=unknown[0],
                        train=parts["train"][0],
                        hint=did_you_mean(unknown[0], labels),
                    )
                )
            used.setdefault(part, []).append(path)
            folders += [ClassFolder(sub, labels.index(sub.name), part) for sub in classes[path]]
    return Layout(labels, folders, used, left_out)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
