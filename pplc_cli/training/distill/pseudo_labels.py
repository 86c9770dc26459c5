"""Pseudo-labels: label images with trained models, and write the confident predictions as a list to train on.

Averaging the predictions for several views of an image (data distillation): Radosavovic et al., 2017, arXiv:1712.04440.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Optional, Union

import numpy as np

from pplc_cli.base.errors import ImageError, PplcError, TrainError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import PathLike, user_path, write_json, write_text
from pplc_cli.base.storage.locks import beside, claim
from pplc_cli.base.text import plain
from pplc_cli.data.decode import decode_image, read_image
from pplc_cli.data.image_files import find_copies, is_image_name, list_files, read_bytes
from pplc_cli.data.lists import read_labels, read_part
from pplc_cli.training.distill.teacher import Teacher, open_teacher
from pplc_cli.training.runs.run_folder import RunFolder

BATCH = 16  # images, each in several views
SHOWN = 6  # images per class on the contact sheet: the least confident ones
TILE = 352  # pixels, twice the size on the sheet
ROWS = 40  # classes on the sheet
ZOOMS = (1.0, 1.15)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image with its most probable label's number and that label's probability."""

    path: Path
    label: int
    score: float


@dataclasses.dataclass(frozen=True)
class Labelling:
    """The result of :func:`pseudo_label`.

    Attributes:
        file: the list; the report and the contact sheet are beside it.
        labels: the models' classes.
        kept: images on the list, the most confident first.
        unsure: by label, the number of images below the threshold.
        surplus: by label, the number of images beyond ``per_class``.
        known: number of images skipped because the models were trained or tested on them.
        unchecked: models whose lists could not be read; images on them may be among those kept.
        failed: files that cannot be read as images, and why.
        undrawn: why there is no contact sheet; None: there is one, or there are no images for it.
    """

    file: Path
    labels: list[str]
    kept: list[Labelled]
    unsure: list[int]
    surplus: list[int]
    known: int
    unchecked: list[str]
    failed: list[tuple[str, str]]
    undrawn: Optional[str] = None

    def counts(self) -> list[int]:
        """Number of images kept, by class."""
        counts = [0] * len(self.labels)
        for one in self.kept:
            counts[one.label] += 1
        return counts


def pseudo_label(
    folder: PathLike,
    models: Sequence[str],
    output: PathLike,
    *,
    threshold: float = 0.95,
    per_class: Optional[int] = None,
    zooms: Sequence[float] = ZOOMS,
    flip: bool = True,
    threads: Optional[int] = None,
    progress: ProgressCallback = lambda done, total: None,
) -> Labelling:
    """Label the images of a folder, and write the confident labels as a list for ``data.extra_list``.

    Args:
        folder: of images, with all its subfolders.
        models: runs, exported folders or ONNX files with the same classes; their probabilities are averaged.
        output: the list; a JSON report and a contact sheet are written beside it, with the suffixes .json and .png.
        threshold: smallest probability of an image on the list.
        per_class: largest number of images per class, the most confident ones; None: no limit.
        zooms: factors by which the centre of the image is enlarged; each gives a view.
        flip: also use the mirror image of each view.
        threads: None: physical cores.
        progress: called with the number of images done and the total.

    Raises:
        PplcError: there are no images, the models have different classes, ``output`` exists and is no such list, or
            another process is writing it.
    """
    folder, output = user_path(folder), user_path(output)
    if output.suffix.lower() in (".json", ".png") or output.is_dir() or not output.parent.is_dir():
        raise TrainError(
            tr(
                "{output}: expected a file in an existing folder, with another suffix than .json and "
                ".png, which are for the report and the contact sheet",
                output=output,
            )
        )
    _require_own(output)
    with claim(output, beside(output)):
        return _label(folder, models, output, threshold, per_class, zooms, flip, threads, progress)


def _require_own(output: Path) -> None:
    """Refuse to replace files that an earlier labelling has not written.

    Raises:
        TrainError: there are such files.
    """
    report = output.with_suffix(".json")
    found = [file for file in (output, report, output.with_suffix(".png")) if file.exists()]
    try:
        known = bool(found) and {"models", "threshold", "pictures"} <= set(json.loads(report.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        known = False
    if found and not known:
        raise TrainError(
            tr("{file} exists, and pplc label has not written it; choose another file with --output", file=found[0])
        )


def _label(
    folder: Path,
    models: Sequence[str],
    output: Path,
    threshold: float,
    per_class: Optional[int],
    zooms: Sequence[float],
    flip: bool,
    threads: Optional[int],
    progress: ProgressCallback,
) -> Labelling:
    files = [file for file in list_files(folder) if is_image_name(file)]
    if not files:
        raise TrainError(tr("{folder}: holds no images", folder=folder))
    ensemble = _Ensemble([open_teacher(model, threads=threads) for model in models], zooms, flip)
    listed, unchecked = listed_images(models)
    copies = find_copies(files, listed)
    kept: list[Labelled] = []
    unsure, failed, done = [0] * len(ensemble.labels), [], len(copies)
    for batch in _predict([file for file in files if file not in copies], ensemble, threads or physical_cores()):
        for one in batch:
            if isinstance(one, tuple):
                failed.append(one)
            elif one.score >= threshold:
                kept.append(one)
            else:
                unsure[one.label] += 1
        done += len(batch)
        progress(done, len(files))
    kept.sort(key=lambda one: -one.score)
    surplus = [0] * len(ensemble.labels)
    if per_class is not None:
        kept = _at_most(kept, per_class, surplus)
    found = Labelling(output, ensemble.labels, kept, unsure, surplus, len(copies), unchecked, failed)
    _write(found, threshold, models)
    try:
        _draw(found, threshold)
    except PplcError as error:  # the list matters more than its picture
        return dataclasses.replace(found, undrawn=str(error))
    return found


class _Ensemble:
    """Averages the probabilities of several models over several views of an image."""

    def __init__(self, models: Sequence[Teacher], zooms: Sequence[float], flip: bool) -> None:
        first = models[0]
        if first.labels is None:
            raise TrainError(tr("{name} has no class names; expected a run or an exported folder", name=first.name))
        self.labels, self._models, self._zooms, self._flip = first.labels, models, zooms, flip
        for model in models[1:]:
            if sorted(model.labels or []) != sorted(first.labels):
                raise TrainError(tr("{name} and {other} have different classes", name=model.name, other=first.name))

    def probabilities(self, images: Sequence[np.ndarray]) -> list[Union[np.ndarray, str]]:
        """Return the mean probabilities of each image, float32 (classes,), or the reason why a model cannot use it.

        Args:
            images: uint8 RGB (H, W, 3).
        """
        if not images:
            return []
        total, count = np.zeros((len(images), len(self.labels)), np.float64), 0
        reasons: dict[int, str] = {}
        for model in self._models:
            order = [(model.labels or []).index(label) for label in self.labels]
            for zoom in self._zooms:
                batch = np.zeros((len(images), 3, *model.pipeline.size), np.float32)
                for number, image in enumerate(images):
                    try:
                        batch[number] = model.prepare(_enlarged(image, zoom))
                    except ImageError as error:
                        reasons[number] = str(error)
                for view in (batch, batch[..., ::-1]) if self._flip else (batch,):
                    predicted, _ = model.predict(view, model.normalize)
                    total += np.exp(predicted[:, order])
                    count += 1
        means = (total / count).astype(np.float32)
        return [reasons.get(number, mean) for number, mean in enumerate(means)]


def _predict(
    files: Sequence[Path], ensemble: _Ensemble, threads: int
) -> Iterator[list[Union[Labelled, tuple[str, str]]]]:
    """Yield the predictions of each batch of files; for an unusable file, its path and the reason."""
    for usable, images, unusable in read_batches(files, threads, decode_for_list):
        results: list[Union[Labelled, tuple[str, str]]] = [*unusable]
        for file, row in zip(usable, ensemble.probabilities(images)):
            if isinstance(row, str):
                results.append((str(file), row))
            else:
                results.append(Labelled(file, int(row.argmax()), float(row.max())))
        yield results


def _enlarged(image: np.ndarray, zoom: float) -> np.ndarray:
    """The centre of an image that fills it when enlarged by a factor."""
    height, width = (max(1, round(side / zoom)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def read_batches(
    files: Sequence[Path], threads: int, read: Callable[[Path], Union[np.ndarray, str]]
) -> Iterator[tuple[list[Path], list[np.ndarray], list[tuple[str, str]]]]:
    """Read :data:`BATCH` files at a time, in threads.

    Args:
        files: all of them.
        threads: number of threads.
        read: returns the image, or why it cannot be used.

    Yields:
        The usable files, their images, and the other files with the reasons.
    """
    waiting = iter(files)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, BATCH)):
            results = list(zip(batch, pool.map(read, batch)))
            usable = [(file, image) for file, image in results if not isinstance(image, str)]
            unusable = [(str(file), reason) for file, reason in results if isinstance(reason, str)]
            yield [file for file, _ in usable], [image for _, image in usable], unusable


def decode_for_list(file: Path) -> Union[np.ndarray, str]:
    """The image, uint8 RGB (H, W, 3), or why it cannot be used; its name must be one that a list can have."""
    try:
        data, name = read_bytes(file), str(file)
        if len(name.splitlines()) > 1 or "\t" in name or name != name.strip() or plain(name) != name:
            raise ImageError(tr("has a name that cannot be written to a list"))
        return decode_image(data)
    except ImageError as error:
        return str(error)


def listed_images(models: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the images on the lists of the models' runs, and the models whose lists cannot be read."""
    found: list[Path] = []
    unchecked: list[str] = []
    for model in models:
        path = user_path(model)
        places = [path, path.parent, path.parent.parent]  # an exported folder is inside its run's folder
        run = next((RunFolder(place) for place in places if RunFolder(place).config_file.is_file()), RunFolder(path))
        try:
            data = run.load_config().data
            labels = read_labels(data)
            found += [s.path for part in ("train", "val", "test") for s in read_part(data, part, labels) or []]
        except PplcError:  # not a run, or its data set was moved
            unchecked.append(model)
    return found, unchecked


def _at_most(kept: Sequence[Labelled], number: int, surplus: list[int]) -> list[Labelled]:
    """Return the first ``number`` images of each class, and count the others in ``surplus``."""
    counts: dict[int, int] = {}
    result = []
    for one in kept:
        counts[one.label] = counts.get(one.label, 0) + 1
        if counts[one.label] <= number:
            result.append(one)
        else:
            surplus[one.label] += 1
    return result


def _write(found: Labelling, threshold: float, models: Sequence[str]) -> None:
    counts, output = found.counts(), found.file
    report = {
        "models": list(models),
        "threshold": threshold,
        "classes": [
            {"label": label, "kept": kept, "unsure": unsure, "surplus": surplus}
            for label, kept, unsure, surplus in zip(found.labels, counts, found.unsure, found.surplus)
        ],
        "known": found.known,
        "failed": [{"path": path, "reason": reason} for path, reason in found.failed],
        "pictures": [
            {"path": str(one.path), "label": found.labels[one.label], "score": round(one.score, 6)}
            for one in found.kept
        ],
    }
    write_json(output.with_suffix(".json"), report)
    write_text(output, "".join(f"{relative_to(one.path, output.parent)} {one.label}\n" for one in found.kept))


def relative_to(path: Path, folder: Path) -> str:
    """The path of a file relative to the list's folder, if that is possible."""
    path, folder = path.resolve(), folder.resolve()
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()


def thumbnail(path: Path) -> np.ndarray:
    """Read an image, reduced to the size of a tile."""
    import cv2

    image = read_image(path)
    scale = TILE / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _draw(found: Labelling, threshold: float) -> None:
    """Draw a contact sheet with a row per class: its least confident images."""
    from pplc_cli.plots.contact_sheet import contact_sheet

    tiles = []
    chosen = [number for number, count in enumerate(found.counts()) if count]
    for number in chosen[:ROWS]:
        label = found.labels[number]
        least = [one for one in found.kept if one.label == number][-SHOWN:][::-1]
        tiles += [(thumbnail(one.path), [label, f"{one.score:.3f}", one.path.name]) for one in least]
        tiles += [(np.full((8, 8, 3), 255, np.uint8), [""])] * (SHOWN - len(least))
    title = f"the least confident of {len(found.kept)} images at or above {threshold:g}"
    if tiles:
        contact_sheet(found.file.with_suffix(".png"), tiles, columns=SHOWN, title=title)
