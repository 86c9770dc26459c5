"""Draw the sample data set: pandas and tigers, one folder each, since photographs cannot be part of the repository.

Colours vary on purpose (coats, casts, distractors, camera metering), so that a classifier has to use shape and texture.
The same seed always gives the same pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import PathLike, atomic_file, user_path
from pplc_cli.data.pandatiger.animals import CLASSES, paint_animal
from pplc_cli.data.pandatiger.scenes import OBJECTS, add_objects, add_plant, develop, paint_scene
from pplc_cli.data.pandatiger.shapes import Painter


def draw_dataset(
    folder: PathLike,
    *,
    images: int = 150,
    seed: int = 0,
    force: bool = False,
    progress: Optional[ProgressCallback] = None,
) -> Path:
    """Draw pandas and tigers into one folder each.

    Args:
        folder: a new or empty folder.
        images: number of each animal.
        seed: random seed.
        force: add to a folder that is not empty; images of the same name are replaced.
        progress: called with the number of images done and the total.

    Raises:
        DataError: the folder is not empty.
    """
    folder = user_path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not force):
        raise DataError(tr("{folder}: expected a new or empty folder; --force adds to it", folder=folder))
    for label, name in enumerate(CLASSES):
        for index in range(images):
            image, quality = draw_image(seed, label, index)
            _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            with atomic_file(folder / name / f"{name}_{index + 1:04d}.jpg") as temporary:
                temporary.write_bytes(data.tobytes())
            if progress:
                progress(label * images + index + 1, len(CLASSES) * images)
    return folder


def draw_image(seed: int, label: int, index: int) -> tuple[np.ndarray, int]:
    """Draw one RGB image of class ``label``; return it and the JPEG quality to save it with."""
    rng = np.random.default_rng([seed, label, index])
    height, width = int(rng.integers(240, 281)), int(rng.integers(288, 321))
    if rng.random() < 0.4:
        height, width = width, height
    image = np.zeros((height, width, 3), np.float32)
    page = Painter(image, rng, np.eye(3), np.ones((height, width), np.float32))
    paint_scene(page, rng)
    add_objects(page, rng, OBJECTS, int(rng.integers(0, 5)), 0.4)
    paint_animal(page, rng, CLASSES[label])
    add_objects(page, rng, OBJECTS, int(rng.integers(0, 3)), 0.85)
    for _ in range(int(rng.integers(1, 3)) if rng.random() < 0.3 else 0):
        add_plant(image, rng, "bamboo", rng.uniform(0, width), height)
    return develop(image, rng), int(rng.integers(60, 96))
