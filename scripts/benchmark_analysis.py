"""Measure what `pplc check` finds, how far answers may be trusted, heat maps, and what to label next.

    python scripts/benchmark_analysis.py --pandatiger FOLDER --flowers FOLDER [--seeds 10] [--json FILE]

Each FOLDER holds one folder per class. Labels are flipped at random; copies are re-encoded, resized, mirrored, cropped
or made brighter or darker, and compared with all other photographs. Trust: PPLCNet_x1_0 is trained on 55 percent of the
photographs of a set and exported (15 percent for validation); coverage of label sets, calibration and the share of
known photographs rejected are measured on the other 30 percent, unknown ones on the other set and on the photographs
of --unknown. Heat maps: the score that is lost if the hottest fifth of an image, or a random fifth, is made grey.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from benchmark_transfer import Photographs, overrides, pplc

from pplc_cli.analysis.duplicates import POSSIBLE, SIMILAR, SURE, difference_hashes, near_duplicates
from pplc_cli.analysis.embedder import Embedder
from pplc_cli.analysis.label_errors import out_of_fold_probabilities, rank_label_errors
from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import class_folders

PARTS = ("labels", "copies", "time", "trust", "next")
COVERAGE, STRANGERS = 0.9, 800
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


def trust(photos: Photographs, strangers: dict[str, list[Path]], seeds: int, epochs: int) -> dict[str, Any]:
    """Train, export and test on each cut; by figure, the values of all cuts."""
    from sklearn.metrics import roc_auc_score

    from pplc_cli import Predictor, load_run
    from pplc_cli.data.lists import read_part
    from pplc_cli.predict.confidence import calibrate
    from pplc_cli.training.evaluation.metrics import Scores, calibration_error

    found: dict[str, Any] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(float(value))

    config, run = photos.scratch / "trust.yaml", photos.scratch / "trust"
    pplc("init", str(photos.folder), "--network", "PPLCNet_x1_0", "--output", str(config), "--force")
    for seed in range(seeds):
        settings = [*photos.divide(seed), f"train.seed={seed}", f"train.epochs={epochs}"]
        pplc("train", str(config), *overrides(settings), "--output", str(run), "--force")
        pplc("export", "--run", str(run))
        opened = load_run(run)
        samples = read_part(opened.config.data, "test", opened.labels) or []
        predictor = Predictor(opened.exported, unknown=True, coverage=COVERAGE)
        known = list(predictor.predict((s.path for s in samples), top_k=len(opened.labels), many=True))
        right = np.array([s.label for s in samples])
        rows = np.array([[dict(one.top)[label] for label in opened.labels] for one in known])
        temperature = json.loads((opened.exported / "pplc.json").read_text("utf-8"))["confidence"]["temperature"]
        add("top1", 100 * (rows.argmax(1) == right).mean())
        add(
            "coverage",
            100 * np.mean([opened.labels[s.label] in (one.label_set or []) for s, one in zip(samples, known)]),
        )
        add("labels in a set", np.mean([len(one.label_set or []) for one in known]))
        add("calibration error, calibrated", calibration_error(Scores(rows, right)))
        add("calibration error, softmax", calibration_error(Scores(calibrate(rows, 1 / temperature), right)))
        add("known rejected", 100 * np.mean([bool(one.unknown) for one in known]))
        distances = [one.distance for one in known]
        for name, files in strangers.items():
            others = [one for one in predictor.predict(files, many=True) if one.error is None]
            values = [*distances, *(one.distance for one in others)]
            add(f"area under ROC, {name}", roc_auc_score([0] * len(known) + [1] * len(others), values))
            add(f"{name} rejected", 100 * np.mean([bool(one.unknown) for one in others]))
    found["score lost"] = masked(run, [s.path for s in samples][::2])
    return found


def masked(run: Path, files: list[Path]) -> dict[str, float]:
    """Mean loss of the predicted class's score, percent, if a fifth of the image is made grey: hottest, or random."""
    from pplc_cli import Explainer
    from pplc_cli.data.transforms.basic import Normalize

    lost: dict[str, list[float]] = {}
    for method in ("layercam", "gradcam"):
        explainer, rng = Explainer(run, method=method), np.random.default_rng(0)
        normalize = next(each for each in explainer._pipeline.sample if isinstance(each, Normalize))
        for file in files:
            found = explainer.explain(file)
            # The random fifth has pieces as large as those of a 7 x 7 map.
            noise = cv2.resize(
                rng.random((7, 7)).astype(np.float32), found.heat.shape[::-1], interpolation=cv2.INTER_CUBIC
            )
            label, images = explainer.labels.index(found.label), [found.image]
            for heat in (found.heat, noise):
                hot = heat >= np.quantile(heat, 0.8)
                images.append(np.where(hot[..., None], np.uint8(128), found.image))
            batch = np.empty((3, 3, *found.heat.shape), np.float32)
            for image, planes in zip(images, batch):
                normalize.write(image, planes)
            before, hottest, random = explainer.scores(batch)[:, label]
            lost.setdefault(method, []).append(100 * float(before - hottest))
            lost.setdefault(f"random, as {method}", []).append(100 * float(before - random))
    return {name: statistics.mean(values) for name, values in lost.items()}


def label_next(features: np.ndarray, truth: np.ndarray, seeds: int) -> dict[str, list[float]]:
    """From ten labels a class, add fifty: top-1 of a linear probe with chosen, with random and without more labels."""
    from pplc_cli.analysis.label_next import choose
    from pplc_cli.predict.confidence import classify
    from pplc_cli.training.transfer.probe import fit_linear

    found: dict[str, list[float]] = {"none": [], "random": [], "chosen": []}
    classes = int(truth.max()) + 1

    def probe(labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = features[labelled], truth[labelled]
        return fit_linear(x, y, classes)

    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = [rng.permutation(np.flatnonzero(truth == label)) for label in range(classes)]
        test, labelled, rest = (
            np.concatenate([each[a:b] for each in order]) for a, b in ((0, 45), (45, 55), (55, None))
        )
        weight, bias = probe(labelled)
        chosen = rest[choose(classify(features[rest], weight, bias), features[rest], 50)]
        for name, more in (("none", rest[:0]), ("random", rng.choice(rest, 50, replace=False)), ("chosen", chosen)):
            weight, bias = probe(np.concatenate([labelled, more]))
            found[name].append(100 * float(((features[test] @ weight + bias).argmax(1) == truth[test]).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pandatiger", type=Path, required=True, help="photographs of pandas and tigers")
    parser.add_argument("--flowers", type=Path, required=True, help="photographs of five flowers")
    parser.add_argument("--large", type=Path, help="a large data set, to measure time and memory")
    parser.add_argument("--unknown", type=Path, help="photographs of other things, for trust")
    parser.add_argument("--epochs", type=int, default=5, help="of the runs of trust (default: %(default)s)")
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
    if "trust" in arguments.only:
        with tempfile.TemporaryDirectory() as scratch:
            measure_trust(sets, arguments, Path(scratch), found)
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
    if "next" in arguments.only:
        files, truth = photographs(arguments.flowers)
        found["next"] = label_next(embeddings(embedder, map(read_image, files)), truth, arguments.seeds)
        print("flowers, 10 labels a class, 50 more: " + ", ".join(
            f"{name} {statistics.mean(tops):.1f} %" for name, tops in found["next"].items()), flush=True)  # fmt: skip
    if "copies" in arguments.only:
        files = [file for folder in sets.values() for file in photographs(folder)[0]]
        found["copies"] = planted_copies(embedder, files)
        shares = ", ".join(f"{kind} {share:.1f} %" for kind, share in found["copies"]["found"].items())
        print(f"copies found: {shares}")
        print(f"pairs reported of {found['copies']['pairs']:,}: {len(found['copies']['reported_pairs'])}")
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {arguments.json}")


def measure_trust(sets: dict[str, Path], arguments: argparse.Namespace, scratch: Path, found: dict[str, Any]) -> None:
    """Measure trust on both sets, each with the other one's photographs as unknown ones."""
    more = photographs_below(arguments.unknown) if arguments.unknown else []
    for name, folder in sets.items():
        others = {other: photographs(path)[0] for other, path in sets.items() if other != name}
        if more:
            others["others"] = more
        found[f"trust, {name}"] = trust(Photographs(folder, scratch), others, arguments.seeds, arguments.epochs)
        for figure, values in found[f"trust, {name}"].items():
            if isinstance(values, dict):
                text = ", ".join(f"{kind} {value:.1f} points" for kind, value in values.items())
            else:
                text = f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            print(f"{name}: {figure}: {text}", flush=True)


def photographs_below(folder: Path) -> list[Path]:
    """An even selection of the photographs below a folder."""
    files = sorted(file for file in list_files(folder) if is_image_name(file))
    return files[:: max(1, len(files) // STRANGERS)]


if __name__ == "__main__":
    main()
