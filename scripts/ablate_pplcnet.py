"""PP-LCNet's ablations on a data set of your own: activation, squeeze-and-excite, large kernels, the 1280 channels.

    python scripts/ablate_pplcnet.py CONFIG [--network PPLCNet_x0_5] [--epochs 20] [--seeds 0 1 2] [--json FILE]

CONFIG names the data set and the recipe. Each row changes one thing of the network (Cui et al., 2021, arXiv:2109.15099,
section 4.4); accuracy is the best validation top-1, latency is measured in turn at the end with the trained networks.
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
    "no squeeze-and-excite": {"se_blocks": []},
    "squeeze-and-excite in the first two blocks": {"se_blocks": FIRST},
    "squeeze-and-excite in two blocks of the middle": {"se_blocks": MIDDLE},
    "squeeze-and-excite in all blocks": {"se_blocks": ALL},
    "3 x 3 kernels alone": {"large_kernel_blocks": []},
    "5 x 5 kernels in the first seven blocks": {"large_kernel_blocks": list(range(1, 8))},
    "5 x 5 kernels in all blocks": {"large_kernel_blocks": ALL},
    "no 1280 channels": {"last_conv": False},
    "group norm": {"norm": "group"},
    "dilated stem": {"dilated_stem": True},
}


def train(config: str, network: str, words: list[str], output: Path) -> float:
    """The best validation top-1 of one run."""
    command = [sys.executable, "-m", "pplc_cli", "train", config, "--model", network, "--pretrained", "none"]
    for word in words:
        command += ["-o", word]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return max(epoch["val_top1"] for epoch in RunFolder(output).epochs())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--network", default="PPLCNet_x0_5")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=224, help="of the images whose latency is measured")
    parser.add_argument("--json", type=Path, default=Path("ablations.json"))
    arguments = parser.parse_args()
    top1: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for number, (name, options) in enumerate(VARIANTS.items()):
                words = [f"train.epochs={arguments.epochs}", f"train.seed={seed}"]
                words += [f"model.options.{key}={json.dumps(value)}" for key, value in options.items()]
                top1[name].append(train(arguments.config, arguments.network, words, Path(folder) / f"{seed}-{number}"))
                print(f"seed {seed}  {name}: {top1[name][-1]:.1%}", flush=True)
        runs = [str(Path(folder) / f"{arguments.seeds[0]}-{number}") for number in range(len(VARIANTS))]
        measured = compare(runs, size=(arguments.size, arguments.size), batch=1)
    print("| network | top-1 (range) | latency ms | MACs M |\n|---|---|---|---|")
    for (name, values), each in zip(top1.items(), measured):
        spread = f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"
        print(f"| {name} | {spread} | {each.latency:.2f} | {each.macs / 1e6:.1f} |")
    result = {name: {"top1": top1[name], "latency": each.latency} for name, each in zip(top1, measured)}
    arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
