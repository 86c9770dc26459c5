"""Measure the built-in weights: accuracy after training on photographs that the weights were not trained on.

    python scripts/benchmark_transfer.py --pandatiger FOLDER --flowers FOLDER [--seeds 3] [--only PART ...]

Each FOLDER holds one folder per class. Every figure is the mean of the seeds with its range; each seed divides the
photographs anew: 55 percent to train on, 15 for validation, 30 held out. All runs are processes of ``pplc``, one after
the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.data.decode import read_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import class_folders

PARTS = ("original", "few", "flowers", "probe", "time", "distil", "default", "init", "choice")
HELD_OUT, VALIDATION = 0.3, 0.15
FEW = 20  # photographs per class
ENOUGH = 0.95  # validation top-1 at which the time stops
ORIGINAL = ["train.epochs=10", "train.batch_size=4", "train.learning_rate=0.01", "train.lr_decay_epochs=[4,6,8]"]
FLOWERS = ["train.epochs=10", "train.batch_size=16", "train.learning_rate=0.02", "train.lr_decay_epochs=[4,6,8]"]
# For a small network, with and without distillation; with 20 epochs distillation gained half as much.
STUDENT = ["train.epochs=60", "train.batch_size=16", "train.learning_rate=0.05", "train.schedule=cosine",
           "train.warmup_epochs=1"]  # fmt: skip
WIDTHS = {"PPLCNet_x1_0": ("0.90", "0.96"), "PPLCNet_x0_5": ("0.76", "0.84"), "PPLCNet_x0_25": ("0.70", "0.76")}


class Photographs:
    """A folder of classes that each seed divides anew."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder.resolve(), scratch
        self.labels = [path.name for path in class_folders(self.folder)]
        self.files = [[f for f in list_files(path) if is_image_name(f)] for path in class_folders(self.folder)]

    def divide(self, seed: int, few: Optional[int] = None) -> list[str]:
        """Write the lists of a seed and return the settings that name them.

        Args:
            few: the largest number of training photographs per class; None: no limit.
        """
        rng = np.random.default_rng(seed)
        rows: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for label, files in enumerate(self.files):
            order = [files[i].relative_to(self.folder).as_posix() for i in rng.permutation(len(files))]
            test, val = round(HELD_OUT * len(order)), round(VALIDATION * len(order))
            train = order[test + val :][:few]
            for part, names in (("test", order[:test]), ("val", order[test : test + val]), ("train", train)):
                rows[part] += [f"{name} {label}\n" for name in names]
        lists = self.scratch / f"{self.folder.name}-{seed}-{few}"
        lists.mkdir(exist_ok=True)
        (lists / "labels.txt").write_text("".join(f"{label}\n" for label in self.labels), encoding="utf-8")
        settings = [f"data.dir={self.folder}", f"data.labels={lists / 'labels.txt'}"]
        for part, lines in rows.items():
            (lists / f"{part}.txt").write_text("".join(lines), encoding="utf-8")
            settings.append(f"data.{part}_list={lists / f'{part}.txt'}")
        return settings


def overrides(settings: Sequence[str]) -> list[str]:
    """Put ``-o`` before each setting."""
    return [argument for setting in settings for argument in ("-o", setting)]


def pplc(*arguments: str) -> str:
    """Run a command that must succeed and return its standard output."""
    done = subprocess.run([sys.executable, "-m", "pplc_cli", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pplc {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stdout


def held_out(folder: Path) -> float:
    """Return top-1 of a run on the held-out photographs, in percent."""
    return 100 * json.loads(pplc("eval", "--run", str(folder), "--split", "test", "--json"))["top1"]


def accuracy(settings: Sequence[str], folder: Path, *more: str, command: str = "train") -> tuple[float, list[float]]:
    """Train; return top-1 on the held-out photographs, and validation top-1 by epoch, all in percent."""
    dataset = ["--dataset", next(s for s in settings if s.startswith("data.dir=")).partition("=")[2]]
    pplc(command, *dataset, *overrides(settings), *more, "--output", str(folder), "--force")
    log = [json.loads(line) for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
    return held_out(folder), [100 * record["val_top1"] for record in log if record["event"] == "epoch"]


def against_probe(config: Path, settings: Sequence[str], folder: Path) -> tuple[float, float]:
    """Train by a configuration; return top-1 on the held-out photographs, of the run and of its linear probe alone."""
    # A single epoch that changes nothing: its result is the probe.
    nothing = ["train.transfer=head", "train.epochs=1", "train.learning_rate=1e-12", "train.warmup_epochs=0"]
    found = []
    for more in ([], nothing):
        pplc("train", str(config), *overrides([*settings, *more]), "--output", str(folder), "--force")
        found.append(held_out(folder))
    return found[0], found[1]


def seconds_to(settings: Sequence[str], folder: Path, *more: str) -> float:
    """Measure seconds from the start of ``pplc train`` to validation top-1 ``ENOUGH``; infinite if never reached."""
    dataset = ["--dataset", next(s for s in settings if s.startswith("data.dir=")).partition("=")[2]]
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "pplc_cli", "train", *dataset, *overrides(settings), *more]
    command += ["--output", str(folder), "--force"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            ended = process.poll() is not None
            with contextlib.suppress(OSError, ValueError):
                for text in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines():
                    if json.loads(text).get("val_top1", 0) >= ENOUGH:
                        return time.perf_counter() - began
            if ended:
                return float("inf")
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def features_of(network: Any, files: Sequence[Path], normalize: dict[str, Any]) -> np.ndarray:
    """Compute the input of a network's classifier for images at 224 x 224: float32 (N, features)."""
    import paddle

    from pplc_cli.base.paddle import as_tensor
    from pplc_cli.data.transforms.pipeline import Pipeline
    from pplc_cli.kernels import accelerate
    from pplc_cli.training.transfer.stages import Stages

    resize = [{"ResizeByShort": {"short_size": 256}}, {"CenterCrop": {"crop_size": 224}}]
    pipeline, rng = Pipeline([*resize, {"Normalize": normalize}], training=False), np.random.default_rng(0)
    network.eval()
    front = Stages(network, 0, len(network.named_stages()) - 1)
    front.eval()
    accelerate(front)
    rows = []
    with paddle.no_grad():
        for start in range(0, len(files), 32):
            batch = np.stack([pipeline(read_image(file), rng) for file in files[start : start + 32]])
            rows.append(front(as_tensor(batch)).numpy())
    return np.concatenate(rows)


def linear_probe(features: np.ndarray, labels: np.ndarray, splits: int = 5) -> float:
    """Fit logistic regression on half of the images; return the accuracy on the other half, percent, mean of splits."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = []
    for train, test in StratifiedShuffleSplit(splits, test_size=0.5, random_state=0).split(features, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        found.append(model.fit(features[train], labels[train]).score(features[test], labels[test]))
    return 100 * statistics.mean(found)


def probes(photographs: Photographs) -> dict[str, float]:
    """Measure the linear probe of all built-in weights and of their teacher's weights, in percent."""
    from pplc_cli.base.paddle import load_paddle

    load_paddle()
    from pplc_cli.models.registry import build_network, find_network
    from pplc_cli.models.weights.builtin import builtin_names
    from pplc_cli.models.weights.pretrained import load_pretrained

    files = [file for each in photographs.files for file in each]
    labels = np.repeat(np.arange(len(photographs.labels)), [len(each) for each in photographs.files])
    found = {}
    sources = {"EfficientNet_Lite0": "imagenet", **{name: "builtin" for name in WIDTHS if name in builtin_names()}}
    for name, source in sources.items():
        spec, network = find_network(name), build_network(name, 1000)
        load_pretrained(network, spec, source)
        mean, std = (list(values) for values in spec.normalization)
        found[name] = linear_probe(features_of(network, files, {"mean": mean, "std": std}), labels)
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Format mean and range: ``96.1 (94.7 to 96.8)``."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(path: Path, curves: dict[str, list[list[float]]]) -> None:
    """Plot validation top-1 by epoch, mean and range of the seeds, from built-in and from random weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, data in zip(axes, ("pandas and tigers", "flowers")):
        for start, colour in (("built-in", "#0072B2"), ("random", "#E69F00")):
            runs = np.array(curves[f"{data}, {start}"])
            epochs = np.arange(1, runs.shape[1] + 1)
            ax.plot(epochs, runs.mean(axis=0), color=colour, label=f"{start} weights")
            ax.fill_between(epochs, runs.min(axis=0), runs.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        ax.set(title=data, xlabel="epoch", ylim=(0, 100))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("validation top-1, %")
    axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pandatiger", type=Path, required=True, help="photographs of pandas and tigers")
    parser.add_argument("--flowers", type=Path, required=True, help="photographs of five flowers")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: %(default)s)")
    parser.add_argument(
        "--network", default="PPLCNet_x1_0", help="a network with built-in weights (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument(
        "--plot", type=Path, default=Path("benchmark_transfer.png"), help="file for the learning curves"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmark_transfer.json"), help="file for all figures")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        measure(arguments, Photographs(arguments.pandatiger, scratch), Photographs(arguments.flowers, scratch), found)
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("| | Target | Goal | Result |\n|---|---|---|---|")
    for row in found["rows"]:
        print(f"| {' | '.join(row)} |", flush=True)
    if "original" in arguments.only and "flowers" in arguments.only:
        draw(arguments.plot, found["curves"])
        print(f"written to {arguments.plot}")
    print(f"written to {arguments.json}")


def measure(arguments: argparse.Namespace, pandas: Photographs, flowers: Photographs, found: dict[str, Any]) -> None:
    """Measure the parts of ``--only`` and add their rows and learning curves to ``found``."""
    seeds, network, scratch = range(arguments.seeds), arguments.network, pandas.scratch
    rows: list[tuple[str, ...]] = []
    curves: dict[str, list[list[float]]] = {}
    found.update(rows=rows, curves=curves)

    def start(weights: str) -> list[str]:
        return ["--model", network, "--pretrained", weights]

    def report(name: str, target: str, goal: str, result: str) -> None:
        rows.append((name, target, goal, result))
        print(f"{name}: {result}", file=sys.stderr, flush=True)

    def series(
        data: Photographs, recipe: Sequence[str], weights: str, name: str, few: Optional[int] = None
    ) -> list[float]:
        """Train with every seed; return the accuracy on the held-out photographs, in percent."""
        tops = []
        for seed in seeds:
            settings = [*data.divide(seed, few), *recipe, f"train.seed={seed}"]
            top, curve = accuracy(settings, scratch / "run", *start(weights))
            tops.append(top)
            curves.setdefault(name, []).append(curve)
        return tops

    if "original" in arguments.only:
        tops = series(pandas, ORIGINAL, "builtin", "pandas and tigers, built-in")
        report("pandas and tigers, recipe of `configs/pandatiger.yaml`", "97 %", "99 %", f"{spread(tops)} %")
        tops = series(pandas, [*ORIGINAL, "train.transfer=auto"], "builtin", "pandas and tigers, auto")
        report("the same, `train.transfer: auto`", "97 %", "99 %", f"{spread(tops)} %")
        tops = series(pandas, [*ORIGINAL, "train.batch_norm=batch"], "builtin", "pandas and tigers, batch norm")
        report("the same, `train.batch_norm: batch`", "", "", f"{spread(tops)} %")
        tops = series(pandas, ORIGINAL, "none", "pandas and tigers, random")
        report("the same from random weights", "", "", f"{spread(tops)} %")
    if "few" in arguments.only:
        for mode in ("full", "auto"):
            tops = series(pandas, [*ORIGINAL, f"train.transfer={mode}"], "builtin", f"few, {mode}", FEW)
            name = f"pandas and tigers with {FEW} photographs per class to train on, `train.transfer: {mode}`"
            report(name, "90 %", "97 %", f"{spread(tops)} %")
    if "flowers" in arguments.only:
        builtin = series(flowers, FLOWERS, "builtin", "flowers, built-in")
        random = series(flowers, FLOWERS, "none", "flowers, random")
        gain = [one - other for one, other in zip(builtin, random)]
        detail = f"{spread(builtin)} % against {spread(random)} %"
        report("five flowers, 10 epochs, points above random weights", "25", "40", f"{spread(gain)}: {detail}")
        tops = series(flowers, [*FLOWERS, "train.transfer=auto"], "builtin", "flowers, auto")
        report("five flowers, top-1 with `train.transfer: auto`", "", "", f"{spread(tops)} %")

    def cuts(data: Photographs, config: Path, name: str, target: str, goal: str) -> None:
        """Report a configuration against its linear probe, with every cut's figures."""
        pairs = []
        for seed in seeds:
            pairs.append(against_probe(config, [*data.divide(seed), f"train.seed={seed}"], scratch / "run"))
            print("cut {}: {:.1f} ({:.1f})".format(seed, *pairs[-1]), file=sys.stderr, flush=True)
        tops = [top for top, _ in pairs]
        each = ", ".join(f"{top:.1f} ({probe:.1f})" for top, probe in pairs)
        report(name, target, goal, f"{spread(tops)} %; each (its probe): {each}")
        kept = sum(top >= probe - 1 for top, probe in pairs)
        report(f"{name}: cuts at most 1 point below their probe", "9 of 10", "10 of 10", f"{kept} of {len(pairs)}")

    if "default" in arguments.only:
        config = Path(__file__).resolve().parents[1] / "configs" / "pandatiger.yaml"
        cuts(pandas, config, "pandas and tigers, `configs/pandatiger.yaml`", "97.5 %, worst 95 %", "99 %, worst 97 %")
    for part, more, targets in (("init", ["--network", network], ("78 %", "84 %")), ("choice", [], ("88 %", "92 %"))):
        if part in arguments.only:
            config = scratch / f"{part}.yaml"
            pplc("init", str(flowers.folder), "--output", str(config), "--force", *more)
            cuts(flowers, config, f"five flowers, `{' '.join(['pplc init', *more])}`", *targets)
    if "probe" in arguments.only:
        probed = probes(flowers)
        teacher = probed.pop("EfficientNet_Lite0")
        for name, top in probed.items():
            row = f"linear probe on five flowers, {name}, as a share of EfficientNet_Lite0's"
            report(row, *WIDTHS[name], f"{top / teacher:.2f}: {top:.1f} of {teacher:.1f} %")
    if "time" in arguments.only:
        for mode in ("full", "auto"):
            seconds = []
            for seed in seeds:
                settings = [*pandas.divide(seed), *ORIGINAL, f"train.transfer={mode}"]
                seconds.append(seconds_to(settings, scratch / "timed", *start("builtin")))
            name = f"seconds to 95 % validation accuracy on pandas and tigers, `train.transfer: {mode}`"
            report(name, "10 s", "4 s", f"{spread(seconds)} s")
    if "distil" in arguments.only:
        alone: list[float] = []
        distilled: list[float] = []
        small = ["--model", "PPLCNet_x0_25", "--pretrained", "builtin"]
        for seed in seeds:
            recipe = [*flowers.divide(seed), f"train.seed={seed}", *STUDENT]
            for command, tops in (("train", alone), ("distill", distilled)):
                tops.append(accuracy(recipe, scratch / "student", *small, command=command)[0])
            print(f"cut {seed}: {distilled[-1]:.1f} ({alone[-1]:.1f})", file=sys.stderr, flush=True)
        gain = [one - other for one, other in zip(distilled, alone)]
        detail = f"{spread(distilled)} % against {spread(alone)} %"
        report(
            "five flowers, x0_25, 60 epochs, points of `pplc distill` above alone",
            "5",
            "10",
            f"{spread(gain)}: {detail}",
        )


if __name__ == "__main__":
    main()
