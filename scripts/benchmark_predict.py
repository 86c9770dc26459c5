"""One picture from process start to exit: pplc predict against a script with paddlex.create_model, in turn.

    python scripts/benchmark_predict.py FOLDER PICTURE [--runs 7]

FOLDER is an exported model. Prints medians with their spread, and the median of the ratios pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

PADDLEX = """
import sys
import paddlex
model = paddlex.create_model(sys.argv[1], model_dir=sys.argv[2], device="cpu")
for result in model.predict(sys.argv[3], batch_size=1):
    print(result.json["res"]["label_names"][0])
"""


def seconds(command: list[str]) -> float:
    """Wall time of a process that must succeed."""
    began = time.perf_counter()
    environment = {**os.environ, "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    name = yaml.safe_load((arguments.folder / "inference.yml").read_text(encoding="utf-8"))["Global"]["model_name"]
    folder, picture = str(arguments.folder), str(arguments.picture)
    commands = {
        "pplc": [sys.executable, "-m", "pplc_cli", "predict", picture, "--model", folder],
        "paddlex": [sys.executable, "-c", PADDLEX, name, folder, picture],
    }
    times: dict[str, list[float]] = {who: [] for who in commands}
    for run in range(arguments.runs + 1):
        for who, command in commands.items():
            taken = seconds(command)
            if run:  # the first pair warms the disk cache
                times[who].append(taken)
    for who, values in times.items():
        print(f"{who:8} median {statistics.median(values):.2f} s  (min {min(values):.2f}, max {max(values):.2f})")
    ratio = statistics.median(a / b for a, b in zip(times["pplc"], times["paddlex"]))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"ratio of the pairs, median: {ratio:.3f}  ({machine})")
    if arguments.json:
        figures = {"seconds": times, "ratio": ratio, "runs": arguments.runs}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
