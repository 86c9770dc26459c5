"""Mutates exported folders, opens each in a process of its own, and predicts an image.

    python tests/fuzz/exports.py FOLDER --count 2000 --engine pplc --seed 0

Every mutated folder must end in an answer of finite numbers or in one line of error: no signal, no traceback, no more
than 5 s of computing, no more memory than the limit. The faults are printed, and their folders kept.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pplc_cli.base.errors import PplcError
from pplc_cli.predict.predictor import Predictor

SECONDS = 5  # of computing
WALL_SECONDS = 120  # on a busy machine
MEMORY = 3 << 30  # bytes of addresses, above those of the parent
NUMBERS: list[Any] = [0, -1, 1, 2, 3, 7, 64, 255, 1000, 4096, 65536, 10**6, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63]
JUNK: list[Any] = [None, True, False, "", "x", "../../x", [], {}, [[]], 0.5, -0.5, 1e-300, 1e300, float("inf"),
                   float("-inf"), float("nan"), 10**200, "\0", "\ud800", "v3", [-1, -1], {"D": 3}]  # fmt: skip


def mutate_plain(value: Any, rng: random.Random) -> Any:
    """Change plain data in one to three places."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        parent, key = _place(value, rng)
        if parent is None:
            continue
        old, action = parent[key], rng.random()
        if action < 0.45 and isinstance(old, (int, float)) and not isinstance(old, bool):
            parent[key] = rng.choice([-old, old + 1, old - 1, old * 2, old * 1000, old / 3, *NUMBERS])
        elif action < 0.7:
            parent[key] = rng.choice([*JUNK, *NUMBERS])
        elif action < 0.8:
            del parent[key]
        elif action < 0.9 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(old))
        elif isinstance(parent, list):
            other = rng.randrange(len(parent))
            parent[key], parent[other] = parent[other], old
        else:
            for _ in range(rng.choice([1, 20, 150])):
                parent[key] = [parent[key]]
    return value


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A random container and one of its keys; deep places are as likely as shallow ones."""
    parent, key = None, None
    while isinstance(value, (dict, list)) and value and (parent is None or rng.random() < 0.9):
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        parent, value = value, value[key]
    return parent, key


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, cut or extend bytes."""
    changed, action = bytearray(data), rng.random()
    if action < 0.1:
        return bytes(changed[: rng.randrange(len(changed))])
    if action < 0.15:
        return data + rng.randbytes(rng.choice([1, 4, 4096]))
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        at = rng.randrange(min(len(changed), rng.choice([64, len(changed)])))
        changed[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << rng.randrange(8), rng.randrange(256)])
    return bytes(changed)


def mutate_folder(source: Path, target: Path, rng: random.Random) -> str:
    """Write a mutated copy of an exported folder; returns the name of the changed file."""
    shutil.copytree(source, target)
    name = _mutate_file(target, rng)
    while (target / name).read_bytes() == (source / name).read_bytes():  # a number became itself
        name = _mutate_file(target, rng)
    return name


def _mutate_file(target: Path, rng: random.Random) -> str:
    names = ["inference.json"] * 6 + ["inference.pdiparams"] * 2 + ["inference.yml"] * 3
    names += ["pplc.json"] * (target / "pplc.json").is_file()
    name = rng.choice(names)
    file = target / name
    data = file.read_bytes()
    if name.endswith(".json") and rng.random() < 0.9:
        content = json.loads(data)
        ops = content["program"]["regions"][0]["blocks"][0]["ops"] if name == "inference.json" else None
        if ops and rng.random() < 0.5:  # strides, paddings, groups, axes, ...
            op = rng.choice([op for op in ops if op["#"] != "p" and op["A"]])
            op["A"] = mutate_plain(op["A"], rng)
        elif ops and rng.random() < 0.9:
            content["program"]["regions"][0]["blocks"][0]["ops"] = mutate_plain(ops, rng)
        else:
            content = mutate_plain(content, rng)
        data = json.dumps(content).encode("utf-8", "surrogatepass")
    elif name == "inference.yml" and rng.random() < 0.7:
        data = yaml.safe_dump(mutate_plain(yaml.safe_load(data), rng)).encode("utf-8", "surrogatepass")
    elif rng.random() < 0.02:
        data = b"[" * 100_000
    else:
        data = mutate_bytes(data, rng)
    file.write_bytes(data)
    return name


def attempt(folder: Path, engine: str, options: dict[str, Any]) -> str:
    """Open a folder and predict an image: ``answer``, ``error: ...``, or ``FAULT: ...``."""
    image = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    try:
        predictor = Predictor(folder, engine=engine, threads=1, **options)
        for prediction in predictor.predict([image, image[:70]], top_k=3):
            json.dumps(prediction.to_dict(), allow_nan=False)
            if prediction.error is not None:
                return f"error: {prediction.error}"
    except PplcError as error:
        text = str(error)
        return f"error: {text}" if "\n" not in text and len(text) < 2000 else f"FAULT: not one line: {text!r}"
    except BaseException as error:  # whatever comes is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAULT: {type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
    return "answer"


def attempt_in_child(folder: Path, engine: str, options: dict[str, Any]) -> str:
    """:func:`attempt` in a forked child with limits of time and memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = Path("/proc/self/statm").read_text("ascii").split()
        limit = int(status[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.write(writing, attempt(folder, engine, options).encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + WALL_SECONDS
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
            return f"FAULT: no end after {WALL_SECONDS} s"
        time.sleep(0.005)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read().decode("utf-8")
    if os.WIFSIGNALED(done[1]):
        return f"FAULT: signal {signal.Signals(os.WTERMSIG(done[1])).name}"
    return result or f"FAULT: exit status {os.WEXITSTATUS(done[1])}"


def fuzz(source: Path, count: int, engine: str, seed: int, keep: Path) -> tuple[collections.Counter[str], list[str]]:
    """Try mutated copies of a folder.

    Returns:
        How often each outcome occurred, and the faults; their folders are kept in ``keep``.
    """
    assert attempt(source, engine, {}) == "answer"  # and loads what all children need
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "export"
            name = mutate_folder(source, folder, rng)
            options = {"features": True} if engine == "pplc" and rng.random() < 0.1 else {}
            outcome = attempt_in_child(folder, engine, options)
            outcomes[f"{name}: {outcome.partition(':')[0]}"] += 1
            if outcome.startswith("FAULT"):
                faults.append(f"{seed}-{number} {name} {options}: {outcome}")
                shutil.copytree(folder, keep / f"{seed}-{number}", dirs_exist_ok=True)
    return outcomes, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--engine", default="pplc")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("faults"), help="folder for the folders that failed")
    given = parser.parse_args()
    outcomes, faults = fuzz(given.folder, given.count, given.engine, given.seed, given.keep)
    for outcome, times in sorted(outcomes.items()):
        print(f"{times:6} {outcome}")
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
