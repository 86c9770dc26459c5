"""Measure how decoding JPEGs at a reduced size would change an exported model's predictions.

    python scripts/compare_decoding.py MODEL FOLDER

FOLDER has one folder per class, with JPEGs several times as large as the model's input. For each reduction the script
prints how many labels change and by how much the scores differ, for the model's own interpolation and for AREA, which
averages pixels. Saving the JPEGs once more at quality 95 serves as the comparison.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pplc_cli import Predictor
from pplc_cli.data.decode import decode_image, jpeg_size
from pplc_cli.data.image_files import list_files
from pplc_cli.data.transforms.basic import Resize, ResizeByShort
from pplc_cli.data.transforms.pipeline import Pipeline

BATCH = 16
_UNUSED = np.random.default_rng(0)


def saved_again(data: bytes) -> np.ndarray:
    """Decode, save as JPEG at quality 95, which is not visible, and decode again."""
    file = io.BytesIO()
    Image.fromarray(decode_image(data)).save(file, "JPEG", quality=95)
    return decode_image(file.getvalue())


def scores(predictor: Predictor, pipeline: Pipeline, files: list[bytes], decode: Callable) -> np.ndarray:
    """Return the probabilities of all files, float32 (N, classes)."""
    rows = []
    for start in range(0, len(files), BATCH):
        rows.append(predictor.engine.run(np.stack([pipeline(decode(data), _UNUSED) for data in files[start:][:BATCH]])))
    return np.concatenate(rows)


def with_area(pipeline: Pipeline) -> Pipeline:
    """Return the same pipeline with AREA interpolation in its resize."""
    raw = []
    for transform in pipeline.sample:
        arguments = dict(vars(transform))
        if isinstance(transform, (Resize, ResizeByShort)):
            arguments["interp"] = "AREA"
        raw.append({type(transform).__name__: arguments})
    return Pipeline(raw, training=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported folder")
    parser.add_argument("folder", type=Path, help="JPEGs, one folder per class")
    arguments = parser.parse_args()
    predictor = Predictor(arguments.model)
    pairs = [(path.parent.name, path.read_bytes()) for path in list_files(arguments.folder)]
    pairs = [(label, data) for label, data in pairs if jpeg_size(data) and label in predictor.labels]
    files = [data for _, data in pairs]
    truth = np.array([predictor.labels.index(label) for label, _ in pairs])
    for name, pipeline in (("own", predictor.pipeline), ("AREA", with_area(predictor.pipeline))):
        largest = min(pipeline.largest_reduction(*(jpeg_size(data) or (1, 1))) for data in files)
        full = scores(predictor, pipeline, files, decode_image)
        print(f"{name} interpolation, {len(files)} images, full size: top-1 {(full.argmax(1) == truth).mean():.1%}")
        variants: dict[str, Callable] = {"saved again at quality 95": saved_again}
        for reduction in (r for r in (2, 4, 8) if r <= largest):
            variants[f"decoded at 1/{reduction}"] = lambda data, reduction=reduction: decode_image(data, reduction)
        for variant, decode in variants.items():
            found = scores(predictor, pipeline, files, decode)
            difference = np.abs(found - full).max(1)
            print(
                f"  {variant}: top-1 {(found.argmax(1) == truth).mean():.1%}, labels changed "
                f"{(found.argmax(1) != full.argmax(1)).mean():.1%}, score differences {difference.mean():.4f} on "
                f"average, {difference.max():.3f} at most"
            )


if __name__ == "__main__":
    main()
