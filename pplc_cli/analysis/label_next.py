"""What to label next: the unlabelled images that would teach a trained network most."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Union

import numpy as np

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.storage.files import PathLike, user_path, write_text
from pplc_cli.data.image_files import find_copies, is_image_name, list_files
from pplc_cli.plots.contact_sheet import contact_sheet
from pplc_cli.predict.confidence import unit_length
from pplc_cli.training.distill.pseudo_labels import (
    decode_for_list,
    listed_images,
    read_batches,
    relative_to,
    thumbnail,
)
from pplc_cli.training.distill.teacher import open_teacher

CANDIDATES = 5_000  # the least certain images, from which the choice is made
SHEET = 60  # images on the contact sheet
HEADER = ("path", "label", "predicted", "score", "margin")


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """An image to label.

    Attributes:
        path: of the image.
        predicted: the network's answer.
        score: its probability.
        margin: how far the second class is behind; 0: the network cannot tell.
    """

    path: Path
    predicted: str
    score: float
    margin: float


@dataclasses.dataclass(frozen=True)
class Suggestions:
    """The result of :func:`suggest_images`.

    Attributes:
        file: the list, a CSV table; a contact sheet with the suffix .png is beside it.
        images: what to label, the least certain first.
        unlabelled: number of images that were ranked.
        known: number of images skipped because the model was trained or tested on them.
        failed: files that cannot be read as images, and why.
        undrawn: why there is no contact sheet; "": there is one.
    """

    file: Path
    images: list[Suggestion]
    unlabelled: int
    known: int
    failed: list[tuple[str, str]]
    undrawn: str = ""


def suggest_images(
    folder: PathLike,
    model: str,
    count: int,
    output: PathLike,
    *,
    threads: int = 0,
    progress: ProgressCallback = no_progress,
) -> Suggestions:
    """Choose images whose labels would teach a trained network most, and write them as a list to fill in.

    The images are grouped by k-means on their embeddings, weighted by the network's uncertainty; from each group comes
    the one nearest its centre. On flowers this teaches more than images drawn at random, and more than the least
    certain ones alone or a k-center cover (docs/trust.md).

    Args:
        folder: of images, with all its subfolders.
        model: a run.
        count: images to choose.
        output: the table to write; a contact sheet is written beside it.
        threads: of the network; 0: physical cores.
        progress: called with the number of images done and the total.

    Raises:
        PplcError: there are no images that are not labelled yet, the model has no class names or no embeddings, or
            ``output`` exists and is no such table.
    """
    target = user_path(output)
    _require_own(target)
    files = [file for file in list_files(user_path(folder)) if is_image_name(file)]
    teacher = open_teacher(model, threads=threads or None)
    labels = teacher.labels
    if labels is None or not teacher.features:
        raise TrainError(tr("{model}: expected a run, whose network has class names and embeddings", model=model))
    listed, _ = listed_images([model])
    copies = find_copies(files, listed)
    rest = [file for file in files if file not in copies]
    if not rest:
        raise TrainError(tr("{folder}: holds no images that are not labelled yet", folder=folder))
    paths: list[Path] = []
    rows: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    failed: list[tuple[str, str]] = []
    done = 0

    def prepare(file: Path) -> Union[np.ndarray, str]:
        image = decode_for_list(file)
        return image if isinstance(image, str) else teacher.prepare(image)

    for usable, images, unusable in read_batches(rest, threads or physical_cores(), prepare):
        failed += unusable
        if usable:
            scores, features = teacher.predict(np.stack(images), teacher.normalize)
            assert features is not None
            paths += usable
            rows.append(np.exp(scores))
            embeddings.append(unit_length(features))
        done += len(usable) + len(unusable)
        progress(done, len(rest))
    if not paths:
        raise TrainError(tr("{folder}: none of the images can be used: {reason}", folder=folder, reason=failed[0][1]))
    probabilities = np.concatenate(rows)
    chosen = choose(probabilities, np.concatenate(embeddings), count)
    margins = margins_of(probabilities)
    images_to_label = [
        Suggestion(paths[i], labels[int(probabilities[i].argmax())], float(probabilities[i].max()), float(margins[i]))
        for i in chosen
    ]
    found = Suggestions(target, images_to_label, len(paths), len(copies), failed)
    _write(found)
    try:
        _draw(found)
    except PplcError as error:  # the list matters more than its picture
        return dataclasses.replace(found, undrawn=str(error))
    return found


def margins_of(probabilities: np.ndarray) -> np.ndarray:
    """How far the second class is behind the first, (N,), of probabilities, (N, classes)."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), np.float32)
    best = -np.partition(-probabilities, 1, axis=1)[:, :2]
    margins: np.ndarray = best[:, 0] - best[:, 1]
    return margins


def choose(probabilities: np.ndarray, embeddings: np.ndarray, count: int) -> list[int]:
    """Choose images that are uncertain and unlike each other: their indices, the least certain first.

    Args:
        probabilities: (N, classes).
        embeddings: of length 1, (N, features).
        count: images to choose, at most N.
    """
    from sklearn.cluster import KMeans

    margins = margins_of(probabilities)
    candidates = np.argsort(margins, kind="stable")[: max(CANDIDATES, count)]
    if count >= len(candidates):
        return candidates.tolist()
    weights = 1 - margins[candidates] + 1e-3
    groups = KMeans(count, n_init=2, random_state=0).fit(embeddings[candidates], sample_weight=weights)
    similar = embeddings[candidates] @ groups.cluster_centers_.T
    taken: list[int] = []
    for group in range(count):
        order = np.argsort(-similar[:, group], kind="stable")
        taken.append(next(int(candidates[i]) for i in order if int(candidates[i]) not in taken))
    return sorted(taken, key=lambda index: float(margins[index]))


def _require_own(target: Path) -> None:
    """Refuse to replace a file that an earlier call has not written, or whose labels the user has begun to fill in."""
    if not target.exists():
        return
    try:
        rows = list(csv.reader(io.StringIO(target.read_text("utf-8-sig"))))
    except (OSError, ValueError, csv.Error):
        rows = []
    if not rows or tuple(rows[0]) != HEADER:
        raise TrainError(
            tr("{file} exists, and pplc label has not written it; choose another file with --output", file=target)
        )
    if any(len(row) == len(HEADER) and row[1].strip() for row in rows[1:]):
        raise TrainError(tr("{file} exists and has labels already; choose another file with --output", file=target))


def _write(found: Suggestions) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    for one in found.images:
        name = relative_to(one.path, found.file.parent)
        table.writerow([name, "", one.predicted, f"{one.score:.4f}", f"{one.margin:.4f}"])
    write_text(found.file, "\ufeff" + text.getvalue())  # Excel needs the byte order mark to read Chinese names


def _draw(found: Suggestions) -> None:
    """Draw the images to label with the network's answers."""
    tiles = [
        (thumbnail(one.path), [f"{one.predicted}? {one.score:.0%}", one.path.name]) for one in found.images[:SHEET]
    ]
    title = tr("label these next: {count} of {all:,} images", count=len(found.images), all=found.unlabelled)
    contact_sheet(found.file.with_suffix(".png"), tiles, title=title)
