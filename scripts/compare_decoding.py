"""What decoding JPEGs smaller would do to the answers of an exported model, beside saving them once again.

    python scripts/compare_decoding.py MODEL FOLDER

FOLDER has a folder a class, with images several times as large as the model's. Prints, by reduction, how many labels
change and how far scores move, for the model's own resize and for one that takes means (AREA).
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
    """The image after one more JPEG at quality 95, which no eye sees."""
    file = io.BytesIO()
    Image.fromarray(decode_image(data)).save(file, "JPEG", quality=95)
    return decode_image(file.getvalue())


def scores(predictor: Predictor, pipeline: Pipeline, files: list[bytes], decode: Callable) -> np.ndarray:
    """Probabilities, float32 (N, classes)."""
    rows = []
    for start in range(0, len(files), BATCH):
        rows.append(predictor.engine.run(np.stack([pipeline(decode(data), _UNUSED) for data in files[start:][:BATCH]])))
    return np.concatenate(rows)


def with_means(pipeline: Pipeline) -> Pipeline:
    """The same pipeline with the resize that takes means."""
    raw = []
    for operator in pipeline.sample:
        arguments = dict(vars(operator))
        if isinstance(operator, (Resize, ResizeByShort)):
            arguments["interp"] = "AREA"
        raw.append({type(operator).__name__: arguments})
    return Pipeline(raw, training=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported folder")
    parser.add_argument("folder", type=Path, help="images, a folder a class")
    arguments = parser.parse_args()
    predictor = Predictor(arguments.model)
    pairs = [(path.parent.name, path.read_bytes()) for path in list_files(arguments.folder)]
    pairs = [(label, data) for label, data in pairs if jpeg_size(data) and label in predictor.labels]
    files = [data for _, data in pairs]
    truth = np.array([predictor.labels.index(label) for label, _ in pairs])
    for name, pipeline in (("own", predictor.pipeline), ("AREA", with_means(predictor.pipeline))):
        most = min(pipeline.largest_reduction(*(jpeg_size(data) or (1, 1))) for data in files)
        full = scores(predictor, pipeline, files, decode_image)
        print(f"{name} resize, {len(files)} images, in full: top-1 {(full.argmax(1) == truth).mean():.1%}")
        ways: dict[str, Callable] = {"saved again at quality 95": saved_again}
        for reduction in (r for r in (2, 4, 8) if r <= most):
            ways[f"decoded at 1/{reduction}"] = lambda data, reduction=reduction: decode_image(data, reduction)
        for way, decode in ways.items():
            found = scores(predictor, pipeline, files, decode)
            moved = np.abs(found - full).max(1)
            print(
                f"  {way}: top-1 {(found.argmax(1) == truth).mean():.1%}, labels changed "
                f"{(found.argmax(1) != full.argmax(1)).mean():.1%}, scores moved by {moved.mean():.4f} in the mean, "
                f"{moved.max():.3f} at most"
            )


if __name__ == "__main__":
    main()
