"""Repeat PP-LCNet's ablations on your own data: activation, squeeze-and-excitation, kernel sizes, 1280-channel layer.

    python scripts/ablate_pplcnet.py CONFIG [--network PPLCNet_x0_5] [--epochs 20] [--seeds 0 1 2] [--json FILE]

CONFIG gives the data set and the recipe. Each row of the printed table changes one design choice (Cui et al., 2021,
arXiv:2109.15099, section 4.4). Top-1 is the best validation accuracy: mean and range of the seeds. Latency is measured
at the end, on the trained networks of the first seed, all in turn.
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

from pplc_cli.benchmark.compare import compare
from pplc_cli.training.runs.run_folder import RunFolder

FIRST, MIDDLE, ALL = [1, 2], [6, 7], list(range(1, 14))
VARIANTS: dict[str, dict[str, Any]] = {
    "PP-LCNet": {},
    "ReLU for H-Swish": {"activation": "relu"},
    "no squeeze-and-excitation": {"se_blocks": []},
    "squeeze-and-excitation in the first two blocks": {"se_blocks": FIRST},
    "squeeze-and-excitation in two blocks of the middle": {"se_blocks": MIDDLE},
    "squeeze-and-excitation in all blocks": {"se_blocks": ALL},
    "3 x 3 kernels alone": {"large_kernel_blocks": []},
    "5 x 5 kernels in the first seven blocks": {"large_kernel_blocks": list(range(1, 8))},
    "5 x 5 kernels in all blocks": {"large_kernel_blocks": ALL},
    "no 1280 channels": {"last_conv": False},
    "group norm": {"norm": "group"},
    "dilated stem": {"dilated_stem": True},
}


def train(config: str, network: str, overrides: list[str], output: Path) -> float:
    """Train once and return the best validation top-1, 0 to 1."""
    command = [sys.executable, "-m", "pplc_cli", "train", config, "--model", network, "--pretrained", "none"]
    for override in overrides:
        command += ["-o", override]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return max(epoch["val_top1"] for epoch in RunFolder(output).epochs())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="YAML with the data set and the recipe")
    parser.add_argument("--network", default="PPLCNet_x0_5", help="a PP-LCNet (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="epochs per run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run per network and seed")
    parser.add_argument(
        "--size", type=int, default=224, help="image side for the latency, pixels (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, default=Path("ablations.json"), help="file for all figures")
    arguments = parser.parse_args()
    top1: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for number, (name, options) in enumerate(VARIANTS.items()):
                overrides = [f"train.epochs={arguments.epochs}", f"train.seed={seed}"]
                overrides += [f"model.options.{key}={json.dumps(value)}" for key, value in options.items()]
                output = Path(folder) / f"{seed}-{number}"
                top1[name].append(train(arguments.config, arguments.network, overrides, output))
                print(f"seed {seed}  {name}: {top1[name][-1]:.1%}", flush=True)
        runs = [str(Path(folder) / f"{arguments.seeds[0]}-{number}") for number in range(len(VARIANTS))]
        measured = compare(runs, size=(arguments.size, arguments.size), batch=1)
    print("| network | top-1 | ms | multiply-adds, M |\n|---|---|---|---|")  # the table of docs/ablations.md
    for (name, values), each in zip(top1.items(), measured):
        low, mean, high = (100 * value for value in (min(values), statistics.mean(values), max(values)))
        print(f"| {name} | {mean:.1f} % ({low:.1f} to {high:.1f}) | {each.latency:.2f} | {each.macs / 1e6:.1f} |")
    result = {name: {"top1": top1[name], "latency": each.latency} for name, each in zip(top1, measured)}
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
