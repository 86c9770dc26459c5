"""Measure the options that shorten training: time and validation top-1 of each on one data set.

    python scripts/benchmark_options.py CONFIG [--start RUN] [--epochs 20] [--seeds 0 1 2] [--json FILE]

CONFIG gives the data set and the recipe. --start is a trained run of the same network: it adds two variants with frozen
stages that start from its weights, and one that trains all stages from them. For each seed, all variants run in turn.
Seconds are the sum of all epochs, training and validation, without the start of the process.
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
    "none": [],
    "train.accelerate: false": ["train.accelerate=false"],
    "train.precision: bfloat16": ["train.precision=bfloat16"],
    "train.progressive_from: 64": ["train.progressive_from=64"],
    "train.progressive_from: 64 and bfloat16": ["train.progressive_from=64", "train.precision=bfloat16"],
}
STARTED = {
    "from other weights, all stages train": [],
    "from other weights, train.freeze: blocks4": ["train.freeze=blocks4"],
    "from other weights, train.freeze: head": ["train.freeze=head"],
}


def run(config: str, overrides: list[str], output: Path) -> tuple[float, float]:
    """Train once; return the seconds and the best validation top-1, 0 to 1."""
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
    parser.add_argument("config", help="YAML with the data set and the recipe")
    parser.add_argument(
        "--start", type=Path, help="run folder of the same network; adds the variants with frozen stages"
    )
    parser.add_argument("--epochs", type=int, default=20, help="epochs per run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run per variant and seed")
    parser.add_argument("--json", type=Path, default=Path("benchmark_options.json"), help="file for all figures")
    arguments = parser.parse_args()
    variants = dict(VARIANTS)
    if arguments.start:
        weights = (arguments.start / "best_model" / "model.safetensors").resolve()
        variants.update({name: [f"model.pretrained={weights}", *more] for name, more in STARTED.items()})
    found: dict[str, list[Any]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for number, (name, overrides) in enumerate(variants.items()):
                settings = [f"train.epochs={arguments.epochs}", f"train.seed={seed}", *overrides]
                found[name].append(run(arguments.config, settings, Path(folder) / f"{seed}-{number}"))
                print(f"seed {seed}  {name}: {found[name][-1][0]:.1f} s, {found[name][-1][1]:.1%}", flush=True)
    print("| Option | Seconds | Top-1 |\n|---|---|---|")  # the table of docs/benchmarks.md
    for name, runs in found.items():
        seconds, top1 = zip(*runs)
        low, mean, high = (100 * value for value in (min(top1), statistics.mean(top1), max(top1)))
        print(f"| {name} | {statistics.median(seconds):.0f} | {mean:.1f} % ({low:.1f} to {high:.1f}) |")
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
