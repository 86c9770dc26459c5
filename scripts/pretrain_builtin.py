"""Train the built-in weights: distillation from a teacher on a pool of photographs without labels.

    pip install 'pplc[pretrain]'
    python scripts/pretrain_builtin.py --pool FOLDER ... --work FOLDER --network PPLCNet_x1_0

--pool names folders with tar files of JPEGs, see scripts/collect_pool.py. The same command continues after the last
complete epoch. On another machine, `--first N --start builtin` goes on with stage N from the weights that the stages
before left in the package. The teachers are EfficientNet-Lite networks (Apache-2.0).

Some images are held out and labelled with the teacher's best class. The accuracy printed in training is the share of
them on which the student has the same best class. At the end, the network without its classifier is written as float16.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.storage.files import atomic_file, write_json, write_text
from pplc_cli.config.load import check_config
from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.training.runs.checkpoint import load_arrays

LITE0, LITE1 = "EfficientNet_Lite0", "EfficientNet_Lite1"
CLASSES = 1000
HELD_OUT = 500
LABEL_SIDE = 160  # size, pixels, at which the teacher labels the held-out images
RECIPE = {"optimizer": "adamw", "schedule": "cosine", "weight_decay": 0.02, "batch_size": 128, "clip_grad_norm": 1.0,
          "precision": "bfloat16", "progressive_share": 0.8, "ema_decay": 0.999}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training with its own learning rate schedule."""

    epochs: int
    first_side: int  # image size of the first epochs, pixels
    side: int  # image size of the last epochs; the short side of the pool's images is 136
    crop: float  # smallest crop, as a share of the image's sides
    views: int  # augmented versions per image
    learning_rate: float  # the peak
    teacher: str = LITE0
    warmup: float = 1.0  # epochs
    seed: int = 0  # of the views; another seed draws others of the same photographs


# The stages with two teachers saw the wider pool as well, the others the first pool of 31,809 photographs.
STAGES = {
    "PPLCNet_x1_0": (
        Stage(36, 96, 144, 0.59, 8, 3e-3),
        Stage(20, 128, 160, 0.5, 6, 2e-3),
        Stage(4, 96, 128, 0.5, 2, 2e-3, f"{LITE0} + {LITE1}", 0.1),
        Stage(5, 112, 128, 0.5, 2, 2e-3, f"{LITE0} + {LITE1}", 0.1),
    ),
    "PPLCNet_x0_5": (
        Stage(16, 96, 160, 0.5, 6, 3e-3),
        Stage(4, 96, 128, 0.5, 2, 3e-3, f"{LITE0} + {LITE1}", 0.1),
        Stage(4, 112, 128, 0.5, 1, 2e-3, f"{LITE0} + {LITE1}", 0.1, seed=1),
    ),
    "PPLCNet_x0_25": (
        Stage(16, 96, 160, 0.5, 6, 3e-3),
        Stage(4, 96, 128, 0.5, 2, 3e-3, f"{LITE0} + {LITE1}", 0.1),
        Stage(3, 96, 128, 0.5, 1, 2e-3, f"{LITE0} + {LITE1}", 0.1, seed=1),
    ),
}


def unpack(pools: Sequence[Path], target: Path) -> int:
    """Extract the images of all tar files, one folder each, and return their number; existing folders stay."""
    for shard in sorted(file for pool in pools for file in pool.glob("*.tar")):
        folder = target / shard.stem
        if folder.exists():
            continue
        begun = target / f".{shard.stem}"  # renamed when it is whole
        begun.mkdir(parents=True, exist_ok=True)
        with tarfile.open(shard) as archive:
            for member in archive:
                if member.isfile() and is_image_name(member.name):
                    source = archive.extractfile(member)
                    assert source is not None
                    (begun / member.name.replace("/", "_")).write_bytes(source.read())
        begun.rename(folder)
    return sum(1 for _ in list_files(target))


def make_lists(folder: Path, teacher_name: str) -> None:
    """Hold out images and label them with the teacher's best class; the others have no label."""
    from pplc_cli.data.transforms.pipeline import Pipeline
    from pplc_cli.training.distill.teacher import open_teacher

    files = [file for file in list_files(folder / "pool") if is_image_name(file)]
    held = np.random.default_rng(0).permutation(len(files))[:HELD_OUT]
    pipeline = Pipeline(evaluation(LABEL_SIDE), training=False)
    teacher = open_teacher(teacher_name, size=pipeline.size)
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


def configuration(work: Path, network: str, stage: Stage, output: Path, start: str) -> dict[str, Any]:
    """Build the configuration of one stage; ``start`` is the student's file, ``builtin`` or ``none``."""
    return {
        "data": {"dir": str(work), "unlabelled": str(work / "pool"), "cache_mb": 3000},
        "output": str(output),
        "model": {"name": network, "pretrained": start, "dropout": 0.0},
        "train": {
            **RECIPE,
            "seed": stage.seed,
            "epochs": stage.epochs,
            "learning_rate": stage.learning_rate,
            "warmup_epochs": stage.warmup,
            "progressive_from": stage.first_side,
            "transforms": [
                {"RandomCrop": {"crop_size": stage.side, "scaling": [stage.crop, 1.0], "aspect_ratio": [0.75, 1.33]}},
                "RandomHorizontalFlip",
                "Normalize",
            ],
        },
        "eval": {"transforms": evaluation(stage.side), "batch_size": 100},
        "distill": {
            "teacher": stage.teacher,
            "divergence": "kl",
            "features": 4.0,
            "views": stage.views,
            "cache": str(work / "teacher"),
        },
    }


def train_stages(
    work: Path, network: str, first: int, start: str
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Run the stages that are not finished; return the weights, float32, and the results of every stage.

    Args:
        work: folder of the images, the teachers' outputs and the runs.
        network: of the table of stages.
        first: number of the first stage.
        start: its weights: a file, ``builtin`` or ``none``.
    """
    from safetensors.numpy import load_file, save

    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.models.registry import find_network
    from pplc_cli.training.train import train

    results, classifier = [], find_network(network).classifier
    for number, stage in enumerate(STAGES[network][first - 1 :], first):
        output = work / f"{network}-{number}"
        arrays, done = (output.with_name(output.name + ending) for ending in (".safetensors", ".json"))
        if not done.exists():
            config = check_config(configuration(work, network, stage, output, start), source="the script")
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


def draw_curves(work: Path, path: Path) -> None:
    """Plot the agreement with the teachers by photographs seen, for all stages in a work folder."""
    from matplotlib.figure import Figure

    from pplc_cli.training.runs.run_folder import RunFolder

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for log in sorted(work.glob("*/train_log.jsonl")):
        name, _, number = log.parent.name.rpartition("-")
        events = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        images = RECIPE["batch_size"] * next(event["steps"] for event in events if event["event"] == "step")
        epochs = RunFolder(log.parent).epochs()
        seen = [epoch["epoch"] * images / 1e6 for epoch in epochs]
        ax.plot(seen, [100 * epoch["val_top1"] for epoch in epochs], "o-", label=f"{name}, stage {number}")
    ax.set(xlabel="photographs seen in the stage, millions", ylabel="agreement with the teachers, %", ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, nargs="+", required=True, help="folders of tar files")
    parser.add_argument("--work", type=Path, required=True, help="folder for images, teacher outputs and checkpoints")
    parser.add_argument("--network", choices=STAGES, default="PPLCNet_x1_0", help="default: %(default)s")
    parser.add_argument("--first", type=int, default=1, help="number of the first stage (default: %(default)s)")
    parser.add_argument("--start", default="none", help="its weights: none, builtin or a file (default: %(default)s)")
    parser.add_argument("--prepare", action="store_true", help="stop before the training")
    parser.add_argument("--output", type=Path, help="default: the package's folder of built-in weights")
    parser.add_argument("--curves", type=Path, help="only plot the learning curves of the work folder to this file")
    arguments = parser.parse_args()
    work, stages = arguments.work, STAGES[arguments.network]
    if arguments.curves:
        draw_curves(work, arguments.curves)
        return
    if not 1 <= arguments.first <= len(stages):
        parser.error(f"--first: expected 1 to {len(stages)}, got {arguments.first}")
    if not (work / "val_list.txt").exists():
        print(f"{unpack(arguments.pool, work / 'pool')} images in {work / 'pool'}")
        make_lists(work, stages[-1].teacher)
    if arguments.prepare:
        return
    from pplc_cli.models.weights.builtin import write_builtin

    trained, results = train_stages(work, arguments.network, arguments.first, arguments.start)
    path = write_builtin(arguments.network, trained, arguments.output)
    print(json.dumps(results))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
