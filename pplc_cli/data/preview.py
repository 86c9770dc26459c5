"""A contact sheet of the effect of the training transforms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pplc_cli.base.errors import DataError, ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.data.decode import inspect_image
from pplc_cli.data.image_files import is_image_name, list_files, read_bytes
from pplc_cli.data.lists import read_labels, read_part, spread
from pplc_cli.data.settings import DataConfig
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.plots.contact_sheet import contact_sheet


def preview(
    data: DataConfig, pipeline: Pipeline, path: PathLike, *, images: int = 6, draws: int = 4, seed: int = 0
) -> Path:
    """Draw one row per image: the image, the image after each transform, then random draws of the whole pipeline.

    Args:
        data: the data set.
        pipeline: the training transforms.
        path: the PNG to write.
        images: number of rows.
        draws: random draws per row.
        seed: seed of the random generator.

    Raises:
        DataError: there is no readable image.
    """
    normalize = next(o for o in pipeline.sample if isinstance(o, Normalize))
    originals = _some_images(data, images)
    finals = [
        [pipeline(o.image, np.random.default_rng([seed, row, draw])) for row, o in enumerate(originals)]
        for draw in range(draws)
    ]
    targets = np.eye(len(originals), dtype=np.float32)
    for index in range(draws):
        for mixer in pipeline.batch:
            finals[index] = list(mixer(np.stack(finals[index]), targets, np.random.default_rng([seed, index]))[0])
    mixing = "".join(f" + {type(o).__name__}" for o in pipeline.batch)
    tiles = []
    for row, original in enumerate(originals):
        tiles.append((original.image, [original.label, original.name]))
        image, rng = original.image, np.random.default_rng([seed, row, 0])
        for transform in pipeline.sample:
            image = transform(image, rng)
            name = type(transform).__name__
            tiles.append((image, [name]) if image.dtype == np.uint8 else _as_grey_levels(image, name))
        for index in range(draws):
            shown = normalize.undo(finals[index][row].transpose(1, 2, 0))
            tiles.append((shown, [f"all{mixing}, draw {index + 1}"]))
    contact_sheet(path, tiles, columns=1 + len(pipeline.sample) + draws, title=f"train.transforms on {data.dir}")
    return Path(path)


@dataclasses.dataclass(frozen=True)
class _Original:
    """An image, uint8 RGB (H, W, 3), with its class and its file name."""

    image: np.ndarray
    label: str
    name: str


def _some_images(data: DataConfig, count: int) -> list[_Original]:
    """Readable images spread over the training list, or over the folder if it has no lists."""
    folder = user_path(data.dir)
    try:
        labels = read_labels(data)
        files = [(sample.path, labels[sample.label]) for sample in read_part(data, "train", labels) or []]
    except DataError:
        files = []
    files = files or [(file, "") for file in list_files(folder) if is_image_name(file)]
    originals: list[_Original] = []
    for file, label in spread(files, 2 * count):
        try:
            image = inspect_image(read_bytes(file))[0]
        except ImageError:
            continue
        originals.append(_Original(image, label or file.parent.name, file.name))
    if not originals:
        raise DataError(tr("{folder}: no readable image to preview", folder=folder))
    return spread(originals, count)


def _as_grey_levels(image: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Show normalized values, float32 (H, W, 3), as they are: the lowest black, the highest white."""
    low, high = float(image.min()), float(image.max())
    levels = (image - low) * (255 / max(high - low, 1e-6))
    return levels.round().astype(np.uint8), [name, f"values {low:.1f} to {high:.1f}"]
