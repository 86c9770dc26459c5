"""A contact sheet of the effect of the training transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pplc_cli.base.errors import DataError, ImageError
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
    finals = [[pipeline(p, np.random.default_rng([seed, r, d])) for r, p in enumerate(originals)] for d in range(draws)]
    targets = np.eye(len(originals), dtype=np.float32)
    for index in range(draws):
        for mixer in pipeline.batch:
            finals[index] = list(mixer(np.stack(finals[index]), targets, np.random.default_rng([seed, index]))[0])
    tiles = []
    for row, original in enumerate(originals):
        tiles.append((original, ["the image"]))
        image, rng = original, np.random.default_rng([seed, row, 0])
        for transform in pipeline.sample:
            image = transform(image, rng)
            shown = image if image.dtype == np.uint8 else _denormalize(image, normalize)
            tiles.append((np.ascontiguousarray(shown), [type(transform).__name__]))
        mixing = "".join(f" + {type(o).__name__}" for o in pipeline.batch)
        for index in range(draws):
            shown = _denormalize(finals[index][row].transpose(1, 2, 0), normalize)
            tiles.append((shown, [f"all{mixing}, draw {index + 1}"]))
    contact_sheet(path, tiles, columns=1 + len(pipeline.sample) + draws, title=f"train.transforms on {data.dir}")
    return Path(path)


def _some_images(data: DataConfig, count: int) -> list[np.ndarray]:
    """Readable images spread over the training list, or over the folder if it has no lists."""
    folder = user_path(data.dir)
    try:
        samples = read_part(data, "train", read_labels(data)) or []
    except DataError:
        samples = []
    files = [s.path for s in samples] or [f for f in list_files(folder) if is_image_name(f)]
    images: list[np.ndarray] = []
    for file in spread(files, 2 * count):
        try:
            images.append(inspect_image(read_bytes(file))[0])
        except ImageError:
            continue
    if not images:
        raise DataError(f"{folder}: no readable image to preview")
    return spread(images, count)


def _denormalize(image: np.ndarray, normalize: Normalize) -> np.ndarray:
    """Undo Normalize: float32 (H, W, 3) to uint8."""
    low = np.asarray(normalize.min_val if normalize.is_scale else (0, 0, 0))
    span = np.asarray(normalize.max_val) - low if normalize.is_scale else np.ones(3)
    unit = image * np.asarray(normalize.std) + np.asarray(normalize.mean)
    values = unit * span + low
    return np.ascontiguousarray(np.clip(values, 0, 255).round().astype(np.uint8))
