"""Divide images between the training, validation and test list: exact shares, copies and groups together."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr, trn
from pplc_cli.data.lists.parts import PARTS
from pplc_cli.data.settings import SplitConfig


@dataclasses.dataclass(frozen=True)
class CheckedImage:
    """A usable image.

    Attributes:
        name: its path relative to the data set.
        label: the class id.
        digest: the SHA-256 of its bytes.
        part: the part of the data set that it lies in; images of ``train`` may go to parts that the data set lacks.
    """

    name: str
    label: int
    digest: str
    part: str = "train"


def divide(
    images: Sequence[CheckedImage], labels: list[str], group: Optional[re.Pattern[str]], config: SplitConfig
) -> dict[str, list[CheckedImage]]:
    """Keep the parts that a data set has, and cut those that it lacks from its training images.

    Raises:
        DataError: a class would get no training or validation image.
    """
    own = {part: [image for image in images if image.part == part] for part in PARTS}
    val, test = (0.0 if own[part] else getattr(config, part) for part in ("val", "test"))
    cut = dataclasses.replace(config, val=val, test=test)
    parts = assign_parts(group_images(own["train"], group), labels, cut)
    return {"train": parts["train"], "val": parts["val"] + own["val"], "test": parts["test"] + own["test"]}


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


def count_images(images: Sequence[CheckedImage], classes: int) -> list[int]:
    """Count the images of each class."""
    found = Counter(image.label for image in images)
    return [found[index] for index in range(classes)]


def assign_parts(
    components: list[list[CheckedImage]], labels: list[str], config: SplitConfig
) -> dict[str, list[CheckedImage]]:
    """Fill test, then val, with int(share x images) of every class; the rest is for training.

    Large components come first, since small ones still fit later. A component goes to the first part in which all of
    its classes have room.
    """
    total = count_images([p for c in components for p in c], len(labels))
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
        needed = ("train", "val") if config.val else ("train",)  # without a share there are validation images already
        empty = next((part for part in needed if not any(p.label == index for p in parts[part])), None)
        if empty is not None:
            groups = sum(any(p.label == index for p in c) for c in components)
            fault = (
                tr("class {label!r} would get no training image", label=label)
                if empty == "train"
                else tr("class {label!r} would get no validation image", label=label)
            )
            raise DataError(
                tr(
                    "{fault}: it has {images}, and the shares are val {val:g} and test {test:g}; add images or "
                    "change --val and --test. Nothing was written.",
                    fault=fault,
                    images=_described(total[index], groups),
                    val=config.val,
                    test=config.test,
                )
            )
    return parts


def _described(images: int, groups: int) -> str:
    """The number of images and, if some stay together, of groups, as in "5 images in 2 groups that stay together"."""
    text = trn("1 image", "{count:,} images", images)
    if groups == images:
        return text
    return trn(
        "{images} in 1 group that stays together",
        "{images} in {count:,} groups that stay together",
        groups,
        images=text,
    )
