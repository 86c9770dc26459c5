"""Measure what `pplc check` finds: flipped labels and planted copies of photographs, time and memory.

    python scripts/benchmark_analysis.py --pandatiger FOLDER --flowers FOLDER [--seeds 10] [--json FILE]

Each FOLDER holds one folder per class. Labels are flipped at random; copies are re-encoded, resized, mirrored, cropped
or made brighter or darker, and compared with all other photographs.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pplc_cli.analysis.duplicates import POSSIBLE, SIMILAR, SURE, difference_hashes, near_duplicates
from pplc_cli.analysis.embedder import Embedder
from pplc_cli.analysis.label_errors import out_of_fold_probabilities, rank_label_errors
from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import class_folders

PARTS = ("labels", "copies", "time")
FLIPPED, RANKED = 0.05, 0.08  # share of labels flipped; share of the ranking that is looked at
BATCH = 32


def photographs(folder: Path) -> tuple[list[Path], np.ndarray]:
    """The files of a data set, and their class ids."""
    classes = [[f for f in list_files(path) if is_image_name(f)] for path in class_folders(folder)]
    return [f for files in classes for f in files], np.repeat(
        np.arange(len(classes)), [len(files) for files in classes]
    )


def embeddings(embedder: Embedder, images: Iterator[np.ndarray]) -> np.ndarray:
    """Embed decoded images: float32 (N, size)."""
    rows, batch = [], []
    for image in images:
        batch.append(embedder.prepare(image))
        if len(batch) == BATCH:
            rows.append(embedder.embed(np.stack(batch)))
            batch = []
    return np.concatenate([*rows, embedder.embed(np.stack(batch))] if batch else rows)


def flipped_labels(features: np.ndarray, truth: np.ndarray, seeds: int) -> dict[str, Any]:
    """Flip labels, and measure the share of the flips at the top of the ranking."""
    shares, likely, classes = [], [], int(truth.max()) + 1
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        flips = rng.choice(len(truth), round(FLIPPED * len(truth)), replace=False)
        labels = truth.copy()
        labels[flips] = (truth[flips] + rng.integers(1, classes, len(flips))) % classes
        ranked = rank_label_errors(out_of_fold_probabilities(features, labels, seed=seed), labels)
        top = [error.index for error in ranked[: round(RANKED * len(truth))]]
        named = [error.index for error in ranked if error.likely]
        shares.append(100 * float(np.isin(flips, top).mean()))
        likely.append([len(named), 100 * float(np.isin(flips, named).mean())])
    return {"found": shares, "mean": statistics.mean(shares), "named": likely}


def copies(image: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One copy of each kind."""
    height, width = image.shape[:2]
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(2))))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    down, right = round(0.05 * height), round(0.05 * width)
    top, left = rng.integers(0, down + 1), rng.integers(0, right + 1)
    made = {
        "re-encoded": image,
        "resized": cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR),
        "mirrored": np.ascontiguousarray(image[:, ::-1]),
        "cropped": np.ascontiguousarray(image[top : top + height - down, left : left + width - right]),
        "brightness": np.clip(image * rng.uniform(0.7, 1.3), 0, 255).astype(np.uint8),
    }
    quality = {"re-encoded": int(rng.integers(30, 80))}
    return {kind: _as_jpeg(copy, quality.get(kind, 90)) for kind, copy in made.items()}


def _as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])


def planted_copies(embedder: Embedder, files: list[Path]) -> dict[str, Any]:
    """Compare each photograph with its copies, and all photographs with each other."""
    rng = np.random.default_rng(0)
    originals = [read_image(file) for file in files]
    hashes = np.array([difference_hashes(image) for image in originals], np.uint64)
    vectors = embeddings(embedder, iter(originals))
    pairs = near_duplicates(hashes[:, 0], hashes[:, 1], vectors)
    count = len(files)
    found: dict[str, Any] = {
        "photographs": count,
        "pairs": count * (count - 1) // 2,
        "reported_pairs": [[str(files[p.first]), str(files[p.second]), p.bits, p.similarity] for p in pairs],
        "found": {},
    }
    made = [copies(image, rng) for image in originals]
    for kind in made[0]:
        own = np.array([difference_hashes(each[kind])[0] for each in made], np.uint64)
        bits = np.minimum(*(np.bitwise_count(hashes[:, side] ^ own) for side in (0, 1)))
        similar = (vectors * embeddings(embedder, (each[kind] for each in made))).sum(axis=1)
        found["found"][kind] = 100 * float(((bits <= SURE) | ((bits <= POSSIBLE) & (similar >= SIMILAR))).mean())
    return found


def time_and_memory(folder: Path) -> dict[str, Any]:
    """Check a data set."""
    from pplc_cli.analysis.check import check_data

    began = time.perf_counter()
    report = check_data(folder)
    seconds = time.perf_counter() - began
    images = sum(map(sum, report.counts.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"images": images, "seconds": seconds, "images_per_second": images / seconds, "peak_mb": peak / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pandatiger", type=Path, required=True, help="photographs of pandas and tigers")
    parser.add_argument("--flowers", type=Path, required=True, help="photographs of five flowers")
    parser.add_argument("--large", type=Path, help="a large data set, to measure time and memory")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--json", type=Path, default=Path("benchmark_analysis.json"), help="file for all figures")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    sets = {"flowers": arguments.flowers, "pandatiger": arguments.pandatiger}
    if "time" in arguments.only:  # first: the peak memory is that of the process
        for name, folder in {**sets, "large": arguments.large}.items():
            if folder is not None:
                found[f"time, {name}"] = time_and_memory(folder)
                print(f"check of {name}: {found[f'time, {name}']}", flush=True)
    embedder = Embedder()
    found["network"] = embedder.name
    if "labels" in arguments.only:
        for name, folder in sets.items():
            files, truth = photographs(folder)
            found[f"labels, {name}"] = flipped_labels(
                embeddings(embedder, map(read_image, files)), truth, arguments.seeds
            )
            low, mean = min(found[f"labels, {name}"]["found"]), found[f"labels, {name}"]["mean"]
            print(f"{name}: {mean:.1f} % of the flips in the first 8 % of the ranking (least {low:.1f})", flush=True)
    if "copies" in arguments.only:
        files = [file for folder in sets.values() for file in photographs(folder)[0]]
        found["copies"] = planted_copies(embedder, files)
        shares = ", ".join(f"{kind} {share:.1f} %" for kind, share in found["copies"]["found"].items())
        print(f"copies found: {shares}")
        print(f"pairs reported of {found['copies']['pairs']:,}: {len(found['copies']['reported_pairs'])}")
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
