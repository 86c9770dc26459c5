"""The training and validation images of a run, read from the data set's lists before Paddle loads."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Optional, Union

import numpy as np

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr, trn
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.image_files import find_copies
from pplc_cli.data.lists import (
    Sample,
    count_by_class,
    list_unlabelled,
    read_extra,
    read_labels,
    read_part,
    require_part,
)
from pplc_cli.data.settings import DataConfig

SHOWN = 5  # missing files or classes that a message names


@dataclasses.dataclass(frozen=True)
class Samples:
    """The images of a run.

    Attributes:
        labels: class names.
        train: training images; those without a label have -1.
        val: validation images.
    """

    labels: list[str]
    train: list[Sample]
    val: list[Sample]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of classes and lists; a run can only be resumed with the same one."""
        lists = [[(sample.name, sample.label) for sample in samples] for samples in (self.train, self.val)]
        text = json.dumps([self.labels, lists])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def class_weights(self, wanted: Union[str, dict[str, float], None]) -> Optional[np.ndarray]:
        """Loss weights by class, float32 (classes,); None for equal weights.

        Args:
            wanted: ``train.class_weights``.

        Raises:
            DataError: it names a class that does not exist.
        """
        if wanted is None:
            return None
        if isinstance(wanted, str):
            counts = count_by_class(self.train, len(self.labels))
            return np.array([len(self.train) / (len(counts) * max(1, n)) for n in counts], np.float32)
        unknown = sorted(set(wanted) - set(self.labels))
        if unknown:
            raise DataError(
                tr(
                    "train.class_weights: {name!r} is no class; there are {labels}",
                    name=unknown[0],
                    labels=", ".join(self.labels),
                )
            )
        return np.array([wanted.get(label, 1.0) for label in self.labels], np.float32)


def read_samples(data: DataConfig, note: Callable[[str], None]) -> Samples:
    """Read the training and validation images of a data set.

    Args:
        data: the data set; ``extra_list`` and ``unlabelled`` add training images.
        note: called with remarks: added images that are skipped, because they are on the data set's own lists; classes
            without training images; images both for training and validation.

    Raises:
        DataError: a list is missing or wrong, or names files that do not exist.
    """
    labels = read_labels(data)
    val = require_part(data, "val", labels)
    read = require_part if data.unlabelled is None else read_part
    train = list(read(data, "train", labels) or [])
    test = read_part(data, "test", labels) or []
    more: list[Sample] = []
    if data.extra_list is not None:
        more += read_extra(user_path(data.extra_list), labels)
    if data.unlabelled is not None:
        more += list_unlabelled(user_path(data.unlabelled))
    if more:
        # Do not train on validation and test images, nor twice on training images.
        listed = [*train, *val, *test]
        copies = find_copies((sample.path for sample in more), (sample.path for sample in listed))
        new = [sample for sample in more if sample.path not in copies]
        if len(new) < len(more):
            note(tr("{count:,} images are skipped: they are on the data set's own lists", count=len(more) - len(new)))
        train += new
    _require_files([*train, *val, *test])
    for text in _remarks(labels, train, val):
        note(text)
    return Samples(labels, train, val)


def _require_files(samples: Sequence[Sample]) -> None:
    """Raise an error now for all files that are missing, not for one of them at the end of an epoch."""
    files = {sample.path: None for sample in samples}
    missing = [str(file) for file in files if not os.path.isfile(file)]  # noqa: PTH113 - never raises
    if missing:
        shown = ", ".join(missing[:SHOWN] + ["..."] * (len(missing) > SHOWN))
        raise DataError(
            trn(
                "{count:,} of the {total:,} files on the lists does not exist: {shown}; if images were "
                "added or removed, run pplc split --force",
                "{count:,} of the {total:,} files on the lists do not exist: {shown}; if images were "
                "added or removed, run pplc split --force",
                len(missing),
                total=len(files),
                shown=shown,
            )
        )


def _remarks(labels: Sequence[str], train: Sequence[Sample], val: Sequence[Sample]) -> Iterator[str]:
    """What is suspicious in lists that pplc split did not write."""
    counts = count_by_class([sample for sample in train if sample.label >= 0], len(labels))
    without = [label for label, count in zip(labels, counts) if not count]
    if without:
        yield tr(
            "warning: {count} of {total} classes have no training images: {names}",
            count=len(without),
            total=len(labels),
            names=", ".join(without[:SHOWN]),
        )
    both = {sample.path for sample in train} & {sample.path for sample in val}
    if both:
        yield tr(
            "warning: {count:,} images are on the training and on the validation list, as {example}",
            count=len(both),
            example=min(both),
        )
