"""What the options that save work cost in accuracy: time and validation top-1 of each on one data set.

    python scripts/benchmark_options.py CONFIG [--start RUN] [--epochs 20] [--seeds 0 1 2] [--json FILE]

CONFIG names the data set and the recipe. --start: a trained run of the same network, whose weights the frozen variants
(and, to compare, one that trains them all) begin with. Variants are run in turn, seed by seed. Seconds are the epochs'
own, training and validation, without the start of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pplc_cli.training.runs.run_folder import RunFolder

VARIANTS = {
    "as it is": [],
    "train.accelerate: false": ["train.accelerate=false"],
    "train.precision: bfloat16": ["train.precision=bfloat16"],
    "train.progressive_from: 64": ["train.progressive_from=64"],
    "progressive_from: 64, bfloat16": ["train.progressive_from=64", "train.precision=bfloat16"],
}
STARTED = {
    "from other weights, all stages learn": [],
    "from other weights, train.freeze: blocks4": ["train.freeze=blocks4"],
    "from other weights, train.freeze: head": ["train.freeze=head"],
}


def run(config: str, overrides: list[str], output: Path) -> tuple[float, float]:
    """Seconds and best validation top-1 of one training run."""
    command = [sys.executable, "-m", "pplc_cli", "train", config, "--output", str(output)]
    for override in overrides:
        command += ["-o", override]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    epochs = RunFolder(output).epochs()
    return sum(epoch["seconds"] for epoch in epochs), max(epoch["val_top1"] for epoch in epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--start", type=Path, help="a trained run of the same network")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=Path("benchmark_options.json"))
    arguments = parser.parse_args()
    variants = dict(VARIANTS)
    if arguments.start:
        weights = (arguments.start / "best_model" / "model.safetensors").resolve()
        variants.update({name: [f"model.pretrained={weights}", *more] for name, more in STARTED.items()})
    found: dict[str, list[Any]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for number, (name, overrides) in enumerate(variants.items()):
                words = [f"train.epochs={arguments.epochs}", f"train.seed={seed}", *overrides]
                found[name].append(run(arguments.config, words, Path(folder) / f"{seed}-{number}"))
                print(f"seed {seed}  {name}: {found[name][-1][0]:.1f} s, {found[name][-1][1]:.1%}", flush=True)
    for name, runs in found.items():
        seconds, top1 = zip(*runs)
        spread = f"{min(top1):.1%} to {max(top1):.1%}"
        print(f"| {name} | {statistics.median(seconds):.0f} s | {statistics.mean(top1):.1%} ({spread}) |")
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
