"""Measure pplc tune and ensembles of folds on photographs held out from every choice.

    python scripts/benchmark_tuning.py --flowers FOLDER [--seeds 10] [--first 0] [--minutes 20] [--only PART ...]

The folder holds one folder per class. Each seed divides the photographs anew: 55 percent to train on, 15 for
validation, 30 held out. All runs are processes of ``pplc``, one after the other; each cut is printed as it ends.

tune: what ``pplc tune --time`` finds, trained, against what ``pplc init`` writes, trained on the same cut.
folds: an ensemble of five folds, and a soup, against one run of the same recipe.
sampler: samplers and class weights on pandas and tigers cut to 10:1, mean recall of both classes (--pandatiger).
overhead: seconds of a trial beside training itself, from the log of a search.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark_transfer import Photographs, held_out, overrides, pplc, spread

PARTS = ("tune", "folds", "sampler", "overhead")
UNEVEN = 10  # photographs of the larger class for each of the smaller


def say(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def configuration(photographs: Photographs, scratch: Path, *more: str) -> Path:
    """Write what ``pplc init`` writes for the photographs."""
    config = scratch / "init.yaml"
    pplc("init", str(photographs.folder), "--output", str(config), "--force", *more)
    return config


def tuned(photographs: Photographs, seeds: range, minutes: float, found: dict[str, Any]) -> None:
    """Compare what a search finds with what ``pplc init`` writes."""
    scratch = photographs.scratch
    config, rows = configuration(photographs, scratch), []
    for seed in seeds:
        lists = overrides([*photographs.divide(seed), f"train.seed={seed}", f"tune.seed={seed}"])
        began = time.perf_counter()
        words = ["--output", str(scratch / "tune"), "--force", "--time", f"{round(60 * minutes)}s"]
        result = json.loads(pplc("tune", str(config), *lists, *words, "--json"))
        seconds = time.perf_counter() - began
        top1 = {}
        for name, file in (("init", config), ("tuned", Path(result["file"]))):
            pplc("train", str(file), *lists, "--output", str(scratch / "run"), "--force")
            top1[name] = held_out(scratch / "run")
        kept = {key: result[key] for key in ("candidate", "values", "trials", "stopped", "full", "finished")}
        rows.append({**top1, "seed": seed, "seconds": seconds, **kept})
        say(json.dumps(rows[-1]))
    found["tune"] = rows
    gain = [row["tuned"] - row["init"] for row in rows]
    before, after = (spread([row[name] for row in rows]) for name in ("init", "tuned"))
    print(f"| pplc tune against pplc init, points | 2 | 4 | {spread(gain)}: {after} % against {before} % |", flush=True)


def folded(photographs: Photographs, seeds: range, network: str, found: dict[str, Any]) -> None:
    """Compare an ensemble and a soup of five folds with one run of the same recipe."""
    scratch = photographs.scratch
    config, rows = configuration(photographs, scratch, "--network", network), []
    for seed in seeds:
        lists = overrides([*photographs.divide(seed), f"train.seed={seed}"])
        pplc("train", str(config), *lists, "--output", str(scratch / "run"), "--force")
        row: dict[str, Any] = {"seed": seed, "one": held_out(scratch / "run")}
        folder = str(scratch / "folds")
        pplc("train", str(config), *lists, "--output", folder, "--folds", "5", "--force")
        for name, more in (("ensemble", ()), ("soup", ("--soup",))):
            row[name] = 100 * json.loads(pplc("eval", "--run", folder, "--folds", "--json", *more))["top1"]
        row["out_of_fold"] = 100 * json.loads((scratch / "folds" / "folds.json").read_text("utf-8"))["result"]["mean"]
        rows.append(row)
        say(json.dumps(row))
    found["folds"] = rows
    for name in ("ensemble", "soup"):
        gain = [row[name] - row["one"] for row in rows]
        print(f"| {name} of five folds against one run, points | 1 | 2 | {spread(gain)} |", flush=True)


def sampled(photographs: Photographs, seeds: range, found: dict[str, Any]) -> None:
    """Compare what corrects uneven classes, on training lists cut to 10:1."""
    scratch, rows = photographs.scratch, []
    config = configuration(photographs, scratch, "--network", "PPLCNet_x1_0")
    ways = {
        "nothing": [],
        "class_weights: balanced": ["train.class_weights=balanced"],
        "sampler: square_root": ["data.sampler=square_root"],
        "sampler: balanced": ["data.sampler=balanced"],
    }
    for seed in seeds:
        settings = photographs.divide(seed)
        path = Path(next(s for s in settings if s.startswith("data.train_list=")).partition("=")[2])
        lines = path.read_text("utf-8").splitlines()
        first, second = ([line for line in lines if line.endswith(f" {label}")] for label in (0, 1))
        path.write_text("".join(f"{line}\n" for line in [*first, *second[: len(first) // UNEVEN]]), encoding="utf-8")
        row: dict[str, Any] = {"seed": seed}
        for name, more in ways.items():
            lists = overrides([*settings, f"train.seed={seed}", *more])
            pplc("train", str(config), *lists, "--output", str(scratch / "run"), "--force")
            metrics = json.loads(pplc("eval", "--run", str(scratch / "run"), "--split", "test", "--json"))
            row[name] = 100 * statistics.mean(each["recall"] for each in metrics["classes"])
        rows.append(row)
        say(json.dumps(row))
    found["sampler"] = rows
    for name in ways:
        print(f"| 10:1, {name}, mean recall | | | {spread([row[name] for row in rows])} % |", flush=True)


def overhead(photographs: Photographs, found: dict[str, Any]) -> None:
    """Subtract the epochs of each trial from its time; loading weights, probe and network count as training does."""
    from pplc_cli.tuning.study import load_optuna, open_storage, sqlite_url

    scratch = photographs.scratch
    config = configuration(photographs, scratch, "--network", "PPLCNet_x1_0")
    lists, folder = overrides(photographs.divide(0)), scratch / "overhead"
    pplc("train", str(config), *lists, "--output", str(scratch / "run"), "--force", "--epochs", "2")
    began = time.perf_counter()
    space = "tune.space={train.learning_rate: {low: 0.001, high: 0.02, log: true}}"
    more = ["-o", space, "-o", "tune.short=1", "-o", "tune.pruner=none", "-o", "train.epochs=2", "--trials", "8"]
    pplc("tune", str(config), *lists, "--output", str(folder), *more)
    whole = time.perf_counter() - began
    storage = open_storage(sqlite_url(folder / "search.db"))
    study = load_optuna().load_study(study_name=f"{folder.name} short", storage=storage)
    trials = [trial for trial in study.trials if trial.value is not None]
    logs = [folder / "trials" / f"short-{trial.number + 1}" / "train_log.jsonl" for trial in trials]
    epochs = [
        sum(json.loads(line).get("seconds", 0.0) for line in log.read_text("utf-8").splitlines() if '"epoch"' in line)
        for log in logs
    ]
    beside = [
        (after.datetime_start - before.datetime_complete).total_seconds() for before, after in zip(trials, trials[1:])
    ]
    inside = [trial.user_attrs["seconds"] - each for trial, each in zip(trials, epochs)]
    found["overhead"] = {"between": beside, "in the trial, beside epochs": inside, "whole": whole}
    print(f"| seconds between two trials | 2 | 0.5 | {spread(beside, 2)} |")
    print(f"| seconds of a trial beside its epochs: weights, probe, network | | | {spread(inside, 2)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, required=True, help="photographs, a folder for each class")
    parser.add_argument("--pandatiger", type=Path, help="photographs of two classes, for the part sampler")
    parser.add_argument("--seeds", type=int, default=3, help="number of cuts (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first cut (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="of each search (default: %(default)s)")
    parser.add_argument("--network", default="PPLCNet_x1_0", help="of the part folds (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--json", type=Path, default=Path("benchmark_tuning.json"), help="file for all figures")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        flowers = Photographs(arguments.flowers, Path(name))
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        if "overhead" in arguments.only:
            overhead(flowers, found)
        if "sampler" in arguments.only and arguments.pandatiger:
            sampled(Photographs(arguments.pandatiger, Path(name)), seeds, found)
        if "folds" in arguments.only:
            folded(flowers, seeds, arguments.network, found)
        if "tune" in arguments.only:
            tuned(flowers, seeds, arguments.minutes, found)
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
