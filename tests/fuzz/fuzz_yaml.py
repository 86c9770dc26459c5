"""Read mutated configurations in a child process: only errors for users, no hang, bounded memory.

By hand: python tests/fuzz/fuzz_yaml.py --count 2000 --seed 7
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import faulthandler
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from helpers.memory import peak_megabytes  # noqa: E402

SLOWEST = 5  # seconds for one file
MEMORY = 2 << 30  # bytes of address space: Python, NumPy and OpenCV take about half of it

LONG = "a long integer "  # stands for one that PyYAML does not write
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 10**6, 10**12, 2**31, 2**63, 2**64, 10**40, LONG, 0.5, -0.5, 1e-300, 1e300,
    float("nan"), float("inf"), -float("inf"), "", " ", "none", "yes", "1e-3", "nan", "a\0b", "\ud800", "x" * 5000,
    "猫", "../..", "/dev/zero", "~", "~nobody/x", "mine.py:Net", [], {}, [[]], [{}], {"a": {"b": [1]}}, [1, 2],
    [0, 0, 0], [3, 1], list(range(2000)), {1: 2.0}, {True: 1}, {"": ""}, b"bytes", "(", "(a+)+$", "[", "a{99999999999}",
]  # fmt: skip
TOKENS = [
    "&a ", "*a", "<<: *a", "<<: [*a, *a]", "!!python/object:os.system ", "!!binary ", "!!float ", "!!int ", "!!set ",
    "!!omap ", "!!timestamp ", "!x ", "---\n", "...\n", "%YAML 1.1\n", "{", "}", "[", "]", "? ", ": ", "- ", "|\n",
    ">\n", "\t", "\r", "\0", "\x1b[2J", "\u202e", "\ufeff", "#", "'", '"', "1:1:1:1", "0x", "0b", "0o7", "2026-13-45",
    "1e999",
]  # fmt: skip


def seeds() -> list[Any]:
    """Configurations to mutate, as plain data: those of the project, and one with every key and transform."""
    from pplc_cli.config.load import check_config
    from pplc_cli.data.transforms.registry import TRANSFORMS

    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    full = check_config({"data": {"dir": "d"}, "train": {"class_weights": {"a": 2.0}}}).to_dict()
    full["train"]["transforms"] = [
        {name: {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}}
        for name, cls in TRANSFORMS.items()
    ]
    return [*files, json.loads(json.dumps(full))]


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with each of its keys or indices."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from places(tree[key])


def mutated_tree(tree: Any, rng: random.Random) -> Any:
    """Change the structure or the values of a configuration in a few places."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 2, 5])):
        found = list(places(tree))
        if not found:
            return tree
        parent, key = rng.choice(found)
        kind = rng.randrange(7)
        if kind <= 2:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 3:
            del parent[key]
        elif kind == 4:
            parent[key] = rng.choice([[parent[key]], {"a": parent[key]}, [parent[key]] * rng.choice([2, 70, 3000])])
        elif kind == 5 and isinstance(parent, dict):
            renamed = [f"{key}s", str(key)[:-1], str(key).upper(), 3, True, "a.b", "x" * 3000]
            parent[rng.choice(renamed)] = parent.pop(key)
        else:
            source, name = rng.choice(found)
            if name in source if isinstance(source, dict) else name < len(source):
                parent[key] = copy.deepcopy(source[name])
    return tree


def mutated_text(text: str, other: str, rng: random.Random) -> bytes:
    """Change the bytes of a configuration in a few places."""
    data = bytearray(text.encode("utf-8"))
    for _ in range(rng.choice([1, 2, 4, 16])):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([0, 1, 3, 20, 200]))
        kind = rng.randrange(5)
        if kind == 0:
            data[start:end] = rng.randbytes(rng.choice([1, 2, 8]))
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end] * rng.choice([1, 2, 100])
        elif kind == 3:
            data[start:start] = other.encode("utf-8")[start:end]
        else:
            data[start:start] = rng.choice(TOKENS).encode("utf-8", "surrogatepass") * rng.choice([1, 1, 1, 50])
    return bytes(data)


def cases(count: int, seed: int) -> Iterator[bytes]:
    """Mutated files, the same for the same seed."""
    rng, trees = random.Random(seed), seeds()
    texts = [yaml.safe_dump(tree, allow_unicode=True, sort_keys=False) for tree in trees]
    for _ in range(count):
        if rng.random() < 0.6:
            text = yaml.safe_dump(mutated_tree(rng.choice(trees), rng), allow_unicode=True, sort_keys=False)
            data = text.replace(LONG.strip(), "9" * rng.choice([300, 5000])).encode("utf-8", "surrogatepass")
            yield mutated_text(text, rng.choice(texts), rng) if rng.random() < 0.2 else data
        else:
            yield mutated_text(rng.choice(texts), rng.choice(texts), rng)


def read_all(folder: Path) -> dict[str, Any]:
    """Read every file of a folder, in this process; returns counts, the slowest time and the memory in MB."""
    import resource

    from pplc_cli.base.errors import PplcError
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.config.load import check_config, load_config
    from pplc_cli.data.transforms.pipeline import Pipeline

    load_paddle()  # a configuration with code of its own would load it while its time is measured
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts: Counter[str] = Counter()
    slowest, name = 0.0, ""
    for path in sorted(folder.glob("*.yaml")):
        print(path.name, file=sys.stderr, flush=True)  # the last one is that of a crash or a hang
        faulthandler.dump_traceback_later(SLOWEST, exit=True)
        began = time.perf_counter()
        try:
            config = load_config(path)
            Pipeline(config.train.transforms, training=True)
            Pipeline(config.eval.transforms, training=False)
            assert check_config(config.to_dict()) == config
            counts["valid"] += 1
        except PplcError as error:
            assert all(line.isprintable() for line in str(error).split("\n")), str(error)
            counts["refused"] += 1
        faulthandler.cancel_dump_traceback_later()
        slowest, name = max((slowest, name), (time.perf_counter() - began, path.name))
    return {**counts, "slowest": round(slowest, 2), "slowest_file": name, "megabytes": peak_megabytes()}


def run(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Write mutated files into a folder, and read them in a child process.

    Raises:
        AssertionError: the child crashed, hung, took too much memory, or raised something else than an error for users.
    """
    for number, data in enumerate(cases(count, seed)):
        (folder / f"{number:06d}.yaml").write_bytes(data)
    command = [sys.executable, __file__, "--read", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=folder)
    assert done.returncode == 0, f"status {done.returncode}:\n{done.stderr[-3000:]}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", type=Path, metavar="FOLDER", help="read the files of a folder in this process")
    arguments = parser.parse_args()
    if arguments.read is not None:
        print(json.dumps(read_all(arguments.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(arguments.count, arguments.seed, Path(folder))))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
