"""A commented configuration for a folder of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from pplc_cli.base.errors import DataError
from pplc_cli.base.files import PathLike, quoted, user_path, write_text
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import class_folders


class Recipe(NamedTuple):
    """Values that suit fine-tuning on up to so many images."""

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
#   pplc predict PICTURE
data:
  dir: {dir}          # one folder a class; pplc split writes the lists there

split:
  val: 0.2            # share of each class that measures every epoch
  test: {test}           # share kept aside for pplc eval
  seed: 0
  # group: '(patient\\d+)_'  # images whose names share the parenthesis stay on one side

model:
  name: PPLCNet_x1_0  # x0_25 (fastest) x0_35 x0_5 x0_75 x1_0 x1_5 x2_0 x2_5 (most accurate)
  # Weights to start from: auto (official ones, downloaded once, or else built-in ones), imagenet_ssld, imagenet,
  # builtin, a file, or none for random ones, which need several times the epochs.
  pretrained: auto

train:
  epochs: {epochs}
  batch_size: {batch_size}
  learning_rate: {learning_rate}  # for batch_size {batch_size}; scale both together
  optimizer: momentum   # momentum, sgd, adam, adamw (the last two want a learning rate of about 0.001)
  schedule: cosine      # cosine, piecewise (with lr_decay_epochs), constant
  warmup_epochs: 1
  label_smoothing: 0.1
  early_stop: false     # true: stop after early_stop_patience epochs without a better result
{weights}  transforms:           # see them with: pplc preview {file}
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


def write_config(folder: PathLike, file: PathLike, *, force: bool = False) -> Path:
    """Write a configuration for a data set, with values that suit its size.

    Args:
        folder: one folder a class.
        file: the YAML to write.
        force: replace one that is there.

    Raises:
        DataError: no classes, no images, or the file is there already.
    """
    folder, file = user_path(folder), user_path(file)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one folder of images for each class")
    if file.exists() and not force:
        raise DataError(f"{file} is there already; --force replaces it")
    counts = {path.name: sum(map(is_image_name, list_files(path))) for path in class_folders(folder)}
    empty = [name for name, count in counts.items() if count == 0]
    if len(counts) < 2 or empty:
        what = f"the class folder {empty[0]!r} holds no image" if empty else f"has {len(counts)} folders of classes"
        raise DataError(f"{folder}: {what}; expected at least two folders of images")
    images = sum(counts.values())
    recipe = next(r for r in RECIPES if images <= r.up_to)
    uneven = max(counts.values()) >= 3 * min(counts.values())
    weights = "  class_weights: balanced  # the largest class has three times the smallest or more\n" if uneven else ""
    name = folder.resolve().name
    text = _TEMPLATE.format(
        file=quoted(file.as_posix()),
        classes=len(counts),
        images=images,
        dir=json.dumps(folder.as_posix(), ensure_ascii=False),
        test=0.1 if min(counts.values()) >= 10 else 0,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weights=weights,
        output=json.dumps(f"output/{name}", ensure_ascii=False),
    )
    write_text(file, text)
    return file
