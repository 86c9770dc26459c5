"""Check a data set before training: unusable files, odd images, copies, outliers, labels that are probably wrong."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.analysis.duplicates import Pair, near_duplicates
from pplc_cli.analysis.embedder import Embedder
from pplc_cli.analysis.image_facts import ImageFacts, measure_image
from pplc_cli.analysis.label_errors import out_of_fold_probabilities, rank_label_errors
from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.image_files import is_image_name, list_files, read_bytes
from pplc_cli.data.lists import existing_lists, lists_folder, read_labels, read_part
from pplc_cli.data.lists.folders import find_layout, require_classes
from pplc_cli.data.lists.parts import PARTS
from pplc_cli.data.settings import DataConfig

UNREADABLE, COPY, CONFLICT, LEAK, LABEL, OUTLIER = "unreadable", "copy", "conflict", "leak", "label", "outlier"
DARK, BRIGHT, FLAT, BLURRED, SMALL, ELONGATED = "dark", "bright", "flat", "blurred", "small", "elongated"
# In the order in which findings are shown: first what makes results wrong, then what is merely odd.
KINDS = (UNREADABLE, CONFLICT, LEAK, LABEL, COPY, OUTLIER, DARK, BRIGHT, FLAT, BLURRED, SMALL, ELONGATED)

DARKEST, BRIGHTEST = 20.0, 240.0  # mean grey values
LEAST_CONTRAST = 8.0
BLURRED_SHARE, BLURRED_MOST = 0.03, 30.0  # of the data set's median sharpness, and in itself
LEAST_SIDE, MOST_ELONGATED = 32, 4.0
GREY = 3.0  # below this colourfulness an image counts as grey
NEIGHBOURS = 5  # of the same class, whose distance makes an outlier
FENCE = 3.0  # interquartile ranges above the upper quartile
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something about one image that the user should know.

    Attributes:
        kind: one of :data:`KINDS`.
        file: the image's name, relative to the data set.
        label: its class.
        other: the file that it is a copy of, or the class that it probably belongs to; "" for other kinds.
        value: what was measured, for example the brightness; the more negative, the surer for labels.
        reason: why an image is unreadable.
    """

    kind: str
    file: str
    label: str
    other: str = ""
    value: float = 0.0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        labels: class names.
        counts: images by part and class; the part "all" if the data set is not divided.
        kinds: images by file format.
        sides: smallest, median and largest width and height, pixels.
        turned, grey: number of images that EXIF turns, and of those without colour.
        network: whose embeddings were compared.
        findings: in the order of :data:`KINDS`.
    """

    labels: list[str]
    counts: dict[str, list[int]]
    kinds: dict[str, int]
    sides: dict[str, list[int]]
    turned: int
    grey: int
    network: str
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON."""
        return dataclasses.asdict(self)

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of a kind."""
        return [finding for finding in self.findings if finding.kind == kind]


@dataclasses.dataclass(frozen=True)
class _Item:
    """An image to check."""

    path: Path
    name: str
    label: int
    part: str


def check_data(data: Union[DataConfig, str, Path], *, progress: ProgressCallback = no_progress) -> CheckReport:
    """Check all images of a data set, each decoded once.

    Args:
        data: a folder with one folder per class, or the configuration of a data set, whose lists are read if there are
            any.
        progress: called with the number of images done and the total.

    Raises:
        DataError: there are no classes or no images.
    """
    config = data if isinstance(data, DataConfig) else DataConfig(dir=str(data))
    labels, items = _read_items(config)
    if not items:
        raise DataError(tr("{folder}: contains no images", folder=config.dir))
    embedder = Embedder()
    facts: list[Optional[ImageFacts]] = []
    reasons: dict[int, str] = {}
    embeddings = np.zeros((len(items), embedder.size), np.float16)
    for number, (found, embedding) in enumerate(_measured(items, embedder)):
        if isinstance(found, ImageFacts):
            facts.append(found)
            embeddings[number] = embedding
        else:
            facts.append(None)
            reasons[number] = str(found)
        progress(number + 1, len(items))
    readable = [number for number, each in enumerate(facts) if each is not None]
    known = [each for each in facts if each is not None]
    if not known:
        raise DataError(tr("{folder}: contains no image that can be read", folder=config.dir))
    images = _Images([items[number] for number in readable], known, embeddings[readable], labels)
    found_kinds = itertools.chain(
        (_unreadable(items[number], labels, reason) for number, reason in reasons.items()),
        _copies(images),
        _wrong_labels(images),
        _outliers(images),
        _odd(images),
    )
    parts = [part for part in ("all", *PARTS) if any(item.part == part for item in items)]
    return CheckReport(
        labels=labels,
        counts={part: _counts(items, labels, part) for part in parts},
        kinds=dict(collections.Counter(each.kind for each in known).most_common()),
        sides={name: _range([getattr(each, name) for each in known]) for name in ("width", "height")},
        turned=sum(each.turned for each in known),
        grey=sum(each.colour < GREY for each in known),
        network=embedder.name,
        findings=sorted(found_kinds, key=lambda finding: KINDS.index(finding.kind)),
    )


def _read_items(config: DataConfig) -> tuple[list[str], list[_Item]]:
    """The images of the lists if there are any, else of the class folders."""
    if existing_lists(user_path(lists_folder(config))) or config.train_list:
        labels = read_labels(config)
        parts = {part: read_part(config, part, labels) or [] for part in PARTS}
        return labels, [_Item(s.path, s.name, s.label, part) for part, samples in parts.items() for s in samples]
    root = user_path(config.dir)
    if not root.is_dir():
        raise DataError(
            tr("{root}: no such folder; expected a folder with one subfolder of images per class", root=root)
        )
    layout = find_layout(root)
    require_classes(root, layout)
    return layout.labels, [
        _Item(path, path.relative_to(root).as_posix(), folder.label, folder.part if layout.parts else "all")
        for folder in layout.folders
        for path in list_files(folder.path, within=root)
        if is_image_name(path)
    ]


def _measured(
    items: Sequence[_Item], embedder: Embedder
) -> Iterator[tuple[Union[ImageFacts, ImageError], Optional[np.ndarray]]]:
    """The properties and the embedding of each image, or why it cannot be read; decoded by threads, in batches."""

    def read(item: _Item) -> tuple[Union[ImageFacts, ImageError], Optional[np.ndarray]]:
        try:
            facts, pixels = measure_image(read_bytes(item.path))
        except ImageError as error:
            return error, None
        return facts, embedder.prepare(pixels)

    with ThreadPoolExecutor(physical_cores()) as pool:
        for batch in _ahead(pool, read, items):
            prepared = [image for _, image in batch if image is not None]
            embeddings = iter(embedder.embed(np.stack(prepared)) if prepared else ())
            for found, image in batch:
                yield found, None if image is None else next(embeddings)


def _ahead(pool: ThreadPoolExecutor, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[list[Any]]:
    """The results of a function in batches, of which the next one is computed meanwhile."""
    source = iter(items)
    waiting: collections.deque[list[Future[Any]]] = collections.deque()
    while True:
        batch = [pool.submit(function, item) for item in itertools.islice(source, BATCH)]
        if batch:
            waiting.append(batch)
        if len(waiting) > 1 or (waiting and not batch):
            yield [future.result() for future in waiting.popleft()]
        elif not batch:
            return


def _counts(items: Sequence[_Item], labels: Sequence[str], part: str) -> list[int]:
    counted = collections.Counter(item.label for item in items if item.part == part)
    return [counted[label] for label in range(len(labels))]


def _range(values: Sequence[int]) -> list[int]:
    return [int(value) for value in (min(values), np.median(values), max(values))]


# -- findings ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Images:
    """All images that could be read, with their properties and embeddings of length 1."""

    items: list[_Item]
    facts: list[ImageFacts]
    embeddings: np.ndarray
    labels: list[str]

    def finding(self, kind: str, index: int, **more: Any) -> Finding:
        item = self.items[index]
        return Finding(kind, item.name, self.labels[item.label], **more)


def _unreadable(item: _Item, labels: Sequence[str], reason: str) -> Finding:
    return Finding(UNREADABLE, item.name, labels[item.label], reason=reason)


def _copies(images: _Images) -> Iterator[Finding]:
    """Pairs that show the same photograph; copies in other classes or parts do more harm than those in the same."""
    hashes, mirrored = (
        np.array([getattr(each, name) for each in images.facts], np.uint64) for name in ("hash", "mirrored_hash")
    )
    told: set[int] = set()
    for pair in near_duplicates(hashes, mirrored, images.embeddings):
        first, second = images.items[pair.first], images.items[pair.second]
        if pair.second in told:
            continue  # a group of copies: each is named once
        told.add(pair.second)
        kind = CONFLICT if first.label != second.label else LEAK if first.part != second.part else COPY
        yield images.finding(kind, pair.second, other=first.name, value=_likeness(images, pair))


def _likeness(images: _Images, pair: Pair) -> float:
    """1 for files with the same content, otherwise the similarity of the embeddings."""
    same = images.facts[pair.first].digest == images.facts[pair.second].digest
    return 1.0 if same else round(min(pair.similarity, 0.9999), 4)


def _wrong_labels(images: _Images) -> Iterator[Finding]:
    given = np.array([item.label for item in images.items])
    if len(np.unique(given)) < 2 or np.bincount(given).max() < 2:
        return
    ranked = rank_label_errors(out_of_fold_probabilities(images.embeddings.astype(np.float32), given), given)
    for error in ranked:
        if error.likely:
            suggested = images.labels[error.suggested]
            yield images.finding(LABEL, error.index, other=suggested, value=round(error.margin, 4))


def _outliers(images: _Images) -> Iterator[Finding]:
    """Images that are far from the nearest ones of their class."""
    given = np.array([item.label for item in images.items])
    distance = np.full(len(given), np.nan)
    for label in np.unique(given):
        members = np.flatnonzero(given == label)
        if len(members) > NEIGHBOURS:
            vectors = images.embeddings[members].astype(np.float32)
            for start in range(0, len(members), 1024):
                similar = np.sort(vectors[start : start + 1024] @ vectors.T, axis=1)[:, -NEIGHBOURS - 1 : -1]
                distance[members[start : start + 1024]] = 1 - similar.mean(axis=1)
    if np.isnan(distance).all():
        return
    lower, upper = np.nanpercentile(distance, (25, 75))
    for index in np.argsort(-np.nan_to_num(distance)):
        if not distance[index] > upper + FENCE * (upper - lower):
            return
        yield images.finding(OUTLIER, int(index), value=round(float(distance[index]), 4))


def _odd(images: _Images) -> Iterator[Finding]:
    """Images whose light, sharpness or shape says that they show little."""
    usual = float(np.median([each.sharpness for each in images.facts]))
    for index, each in enumerate(images.facts):
        if each.contrast < LEAST_CONTRAST:
            yield images.finding(FLAT, index, value=round(each.contrast, 2))
        elif each.brightness < DARKEST:
            yield images.finding(DARK, index, value=round(each.brightness, 2))
        elif each.brightness > BRIGHTEST:
            yield images.finding(BRIGHT, index, value=round(each.brightness, 2))
        elif each.sharpness < min(BLURRED_SHARE * usual, BLURRED_MOST):
            yield images.finding(BLURRED, index, value=round(each.sharpness, 2))
        short, long = sorted((each.width, each.height))
        if short < LEAST_SIDE:
            yield images.finding(SMALL, index, value=short)
        if long > MOST_ELONGATED * short:
            yield images.finding(ELONGATED, index, value=round(long / short, 2))
