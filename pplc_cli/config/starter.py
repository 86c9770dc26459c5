"""A commented configuration for a folder of classes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple, Optional

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, quoted, user_path, write_text
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import count_by_class, read_labels, require_part
from pplc_cli.data.lists.files import find_list
from pplc_cli.data.lists.folders import Layout, find_layout, require_classes
from pplc_cli.data.settings import DataConfig
from pplc_cli.models.registry import find_network
from pplc_cli.models.weights.local import FAST, GOOD, recommended


class Recipe(NamedTuple):
    """Values for fine-tuning on at most ``up_to`` images."""

    up_to: float
    epochs: int
    batch_size: int
    learning_rate: float


RECIPES = (
    Recipe(200, 30, 8, 0.01),
    Recipe(2_000, 20, 16, 0.015),
    Recipe(20_000, 15, 32, 0.03),
    Recipe(float("inf"), 10, 64, 0.06),
)

_TEMPLATE = """\
# {classes} classes, {images} images. The commands:
#   pplc split --config {file}
#   pplc train {file}
#   pplc eval
#   pplc export
#   pplc predict IMAGE
data:
  dir: {dir}          # {content}
  {lists}lists: {elsewhere}  # where pplc split writes the lists; null: into dir

split:
  val: 0.2            # share of each class for validation after each epoch
  test: {test}           # share of each class for pplc eval
  seed: 0
  # group: '(patient\\d+)_'  # images with the same text in the parentheses go to the same list

model:
{why}  # PP-LCNet: PPLCNet_x0_25 (fastest) x0_35 x0_5 x0_75 x1_0 x1_5 x2_0 x2_5 (most accurate). All: pplc models
  name: {network}
  # Pretrained weights: auto (those of a package or official ones, downloaded once; else the built-in ones), imagenet,
  # imagenet_ssld, builtin, a file, or none (random weights, which need several times as many epochs).
  pretrained: auto

train:
  epochs: {epochs}
  batch_size: {batch_size}
  learning_rate: {learning_rate}  # for batch_size {batch_size}; change both by the same factor
  optimizer: momentum   # momentum, sgd, adam, adamw (adam and adamw need a learning rate of about 0.001)
  schedule: cosine      # cosine, piecewise (with lr_decay_epochs), constant
  warmup_epochs: 1
  label_smoothing: 0.1
  early_stop: false     # true: stop after early_stop_patience epochs without improvement
{weights}  transforms:           # look at their effect: pplc preview {file}
    - RandomCrop: {{crop_size: 224}}
    - RandomHorizontalFlip
    # - ColorJitter: {{brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.05}}
    # - RandAugment: {{num_ops: 2, magnitude: 9}}
    - Normalize
    # - RandomErasing: {{prob: 0.25}}
    # - Mixup: {{alpha: 0.2}}

eval:
  transforms:
    - ResizeByShort: {{short_size: 256}}
    - CenterCrop: {{crop_size: 224}}
    - Normalize

output: {output}
"""


# Why a network was chosen: a comment in the file.
_REASONS = {
    FAST: "  # PPLCNet_x1_0 is fast and has ImageNet weights on this machine.\n",
    GOOD: "  # EfficientNet_Lite0 has ImageNet weights on this machine. PPLCNet_x1_0, 2.5 times as fast, has none.\n",
    None: "  # PPLCNet_x1_0 is fast. No network has ImageNet weights on this machine yet.\n",
}


def write_config(folder: PathLike, file: PathLike, *, network: Optional[str] = None, force: bool = False) -> Path:
    """Write a configuration for a data set, with values chosen by the number of its training images.

    Args:
        folder: the data set, one folder per class, or parts (train, val, test) that have them.
        file: the YAML to write.
        network: its network; None: the one that suits the weights on this machine.
        force: replace an existing file.

    Raises:
        ModelError: there is no such network.
        DataError: there are no classes or no images, or the file exists or would lie within the data set.
    """
    folder, file = user_path(folder), user_path(file)
    found = recommended() if network is None else None
    why = _REASONS[found] if network is None else ""
    chosen = find_network(network or found or FAST).name
    if not folder.is_dir():
        raise DataError(tr("{folder}: no such folder; expected one folder of images for each class", folder=folder))
    place = folder.resolve()
    if place in file.resolve().parents:
        raise DataError(
            tr(
                "{file} would lie within the data set. Go to the folder above (cd ..) and repeat: pplc "
                "init {name}; or name another file with --output",
                file=file,
                name=quoted(place.name),
            )
        )
    if file.exists() and not force:
        raise DataError(tr("{file} exists already; --force replaces it", file=file))
    layout = find_layout(folder)
    data = DataConfig(dir=str(folder))
    listed = len(layout.labels) < 2 and find_list(data, "train") is not None
    if not listed:
        require_classes(folder, layout)
    counts = _count_listed(data) if listed else _count_in_folders(layout, folder)
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise DataError(
            tr("{folder}: the class {label!r} contains no images to train on", folder=folder, label=empty[0])
        )
    images = sum(counts.values())
    recipe = next(r for r in RECIPES if images <= r.up_to)
    uneven = max(counts.values()) >= 3 * min(counts.values())
    weights = "  class_weights: balanced  # the largest class is at least three times the smallest\n" if uneven else ""
    content = "folders of the parts train, val, test" if layout.parts else "one folder per class"
    if listed:
        content = "has lists already, so leave out pplc split"
    text = _TEMPLATE.format(
        file=quoted(file.as_posix()),
        classes=len(counts),
        images=images,
        dir=json.dumps(folder.as_posix(), ensure_ascii=False),
        content=content,
        lists="# " if os.access(folder, os.W_OK) else "",
        why=why,
        network=chosen,
        elsewhere=json.dumps(f"lists/{place.name}", ensure_ascii=False),
        test=0.1 if min(counts.values()) >= 10 else 0,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weights=weights,
        output=json.dumps(f"output/{place.name}", ensure_ascii=False),
    )
    write_text(file, text)
    return file


def _count_in_folders(layout: Layout, root: Path) -> dict[str, int]:
    counts = dict.fromkeys(layout.labels, 0)
    for folder in layout.folders:
        if folder.part == "train":
            counts[layout.labels[folder.label]] += sum(map(is_image_name, list_files(folder.path, within=root)))
    return counts


def _count_listed(data: DataConfig) -> dict[str, int]:
    labels = read_labels(data)
    return dict(zip(labels, count_by_class(require_part(data, "train", labels), len(labels))))
