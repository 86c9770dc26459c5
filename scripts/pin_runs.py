"""Record everything that the commands write, and compare the records of two versions of pplc bit by bit.

    python scripts/pin_runs.py BEFORE.json                     at one commit
    python scripts/pin_runs.py AFTER.json                      at another, on the same machine
    python scripts/pin_runs.py --compare BEFORE.json AFTER.json [--messages]

The script draws a small data set and trains, evaluates, exports and predicts through the command line only, so it does
not depend on the layout of the package. It takes a few minutes on two cores. --only NAME ... restricts it to some runs
and the runs that they start from; with --compare, to the named runs.

A record holds a digest of each array of a safetensors file, the values of JSON, logs and Parquet, the lines of text,
a digest of the pixels of an image, the scalars of VisualDL, and a digest of the bytes of every other file. It leaves
out the keys in VOLATILE, pplc's version, the path of the working folder, the time stamp in VisualDL's file names, lines
with times, and the wording of errors. Messages are compared only with --messages, since their wording may change.
Floating-point results differ between CPUs and between versions of the libraries: compare records of one machine only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image
from pin_recipes import RUNS, Step

VOLATILE = ("seconds", "seconds_left", "images_per_second", "data_wait")  # times and rates
CLASSES = ("ant", "bee", "猫 cat")
ERROR = re.compile(r"""(?<=["']error["']: )(?:"[^"]*"|'[^']*')|(?<=broken\.jpg,,,)[^,]*""")  # of JSON, Parquet, CSV


def draw(work: Path) -> None:
    """Draw the data set and the other inputs, with the same bytes and the same file times at every call."""
    rng = np.random.default_rng(0)

    def image(path: str, label: int) -> None:
        coarse = rng.integers(30, 226, (5, 6, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((88, 72), Image.Resampling.BICUBIC)) // 2
        pixels[..., label] += 100
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(work / path)

    for label, name in enumerate(CLASSES):
        for number in range(16):
            image(f"data/{name}/{number:02} 图.{('jpg', 'png')[number % 2]}", label)
    for number in range(8):
        image(f"loose/{number}.jpg", number % 3)
        image(f"inputs/folder/{number}.{('png', 'jpg')[number % 2]}", number % 3)
        image(f"extra/{number}.png", 0)
    (work / "extra/list.txt").write_text("".join(f"{number}.png 0\n" for number in range(8)), "utf-8")
    (work / "inputs/broken.jpg").write_bytes(b"no image")
    (work / "inputs/list.txt").write_text("folder/2.png 2\nfolder/7.jpg\n\nfolder/gone.jpg\n", "utf-8")
    for path in sorted(work.rglob("*")):
        os.utime(path, (1e9, 1e9))
    with tarfile.open(work / "inputs/images.tar", "w") as archive:
        for path in sorted((work / "loose").iterdir()):
            archive.add(path, path.name)


def run(step: Step, work: Path) -> tuple[int, str, str]:
    """Run a command; return exit status, standard output and standard error."""
    if step.cut is not None:
        os.truncate(work / step.cut[0], (work / step.cut[0]).stat().st_size - step.cut[1])
    environment = {"PPLC_OFFLINE": "1", "COLUMNS": "120", "PYTHONIOENCODING": "utf-8", **os.environ}
    command = [sys.executable, "-m", "pplc_cli", *step.words]
    with subprocess.Popen(command, cwd=work, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, encoding="utf-8") as process:  # fmt: skip
        if step.interrupt is not None:
            log = work / step.interrupt / "train_log.jsonl"
            while process.poll() is None and not (log.exists() and log.read_text("utf-8").count('"epoch", ') >= 2):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(step.stdin)
    if process.returncode != step.status:
        print(f"exit status {process.returncode}: pplc {' '.join(step.words)}\n{err}", file=sys.stderr)
    return process.returncode, out, err


def digest(data: Union[bytes, str]) -> str:
    return hashlib.sha256(data.encode("utf-8") if isinstance(data, str) else data).hexdigest()[:24]


def lines(text: str, work: Path) -> list[str]:
    """Split text into lines without working folder, times and errors; a long line becomes its start and a digest."""
    for name in {str(work.resolve()), str(work)}:
        text = text.replace(name, "WORK")
    kept = (ERROR.sub("ERROR", line) for line in text.split("\n") if "time(ms)" not in line and "_im(ms)" not in line)
    return [line if len(line) < 1000 else f"{line[:60]}... {digest(line)}" for line in kept]


def messages(text: str, work: Path) -> list[str]:
    """Return the lines without times, rates and notes on compiling, which depends on earlier runs."""
    text = re.sub(r"\b[\d.]+ (images/s|s\b)", r"N \1", re.sub(r"\b\d+:\d\d(:\d\d)?\b", "M:SS", text))
    return [line for line in lines(text, work) if not line.startswith("compiling ")]


def steady(value: Any) -> Any:
    """Remove the keys in VOLATILE and the version of pplc from JSON."""
    if isinstance(value, dict):
        # "pplc" is a version if it is text, and the engine's figures otherwise.
        dropped = {*VOLATILE, *(["pplc"] if isinstance(value.get("pplc"), str) else [])}
        return {key: steady(each) for key, each in value.items() if key not in dropped}
    return [steady(each) for each in value] if isinstance(value, list) else value


def content(path: Path, work: Path) -> Any:
    """Return the record of a file."""
    suffix, data = path.suffix, path.read_bytes()
    if path.name == "train_log.jsonl":
        return [steady(json.loads(line)) for line in data.splitlines()]
    if suffix == ".json":
        value = steady(json.loads(data))
        return value if len(data) < 20_000 else digest(json.dumps(value))
    if suffix in (".csv", ".txt", ".yaml", ".yml", ".jsonl") or path.name == "latest_run":
        return lines(data.decode("utf-8"), work)
    if suffix in (".png", ".jpg"):
        image = Image.open(path)
        return f"{image.mode} {image.size} {digest(image.tobytes())}"
    if suffix == ".safetensors":
        size = int.from_bytes(data[:8], "little")
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        meta = {"__metadata__": header.pop("__metadata__", None)}
        return {**meta, **{key: f"{each['dtype']} {each['shape']} {digest(body[slice(*each['data_offsets'])])}"
                           for key, each in header.items()}}  # fmt: skip
    if suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        return [str(table.schema), *lines("\n".join(map(str, table.to_pylist())), work)]
    if path.name.startswith("vdlrecords"):
        from visualdl import LogReader

        reader = LogReader(file_path=str(path))
        tags = sorted(reader.get_tags()["scalar"])
        return {tag: [[each.id, each.value] for each in reader.get_data("scalar", tag)] for tag in tags}
    return digest(data)


def snapshot(name: str, work: Path) -> dict[str, Any]:
    """Record every file of a run's folder by its name, and .pplc/latest_run if it names this run."""
    found = {p.relative_to(work / name).as_posix(): p for p in sorted((work / name).rglob("*")) if p.is_file()}
    if name == "data":
        found = {key: path for key, path in found.items() if path.suffix == ".txt"}
    latest = work / ".pplc/latest_run"
    if latest.exists() and Path(latest.read_text("utf-8").strip()).name == name:
        found["../.pplc/latest_run"] = latest
    return {re.sub(r"vdlrecords\.\d+", "vdlrecords.N", key): content(path, work) for key, path in found.items()}


def needed(names: Sequence[str]) -> list[str]:
    """Return the named runs and the runs that they read, in order."""
    wanted, rest = {"data"}, list(names)
    while rest:
        name = rest.pop()
        wanted.add(name)
        words = [word for step in RUNS[name] for word in step.words[1:] if not word.startswith("train.")]
        rest += {
            word.partition("=")[2].partition("/")[0] or word.partition("/")[0] for word in words
        } & RUNS.keys() - wanted
    return [name for name in RUNS if name in wanted]


def fill(name: str, steps: Sequence[Step], work: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """Run the commands of one folder; return its record (exit statuses, printed results, files) and the messages."""
    done = [run(step, work) for step in steps]
    printed = [lines(out, work) for step, (_, out, _) in zip(steps, done) if step.printed]
    notes = [messages(err if step.printed else out + err, work) for step, (_, out, err) in zip(steps, done)]
    if any(step.interrupt for step in steps):
        notes = []  # they depend on the epoch in which the interruption came
    return {"status": [each[0] for each in done], "printed": printed, "files": snapshot(name, work)}, notes


def record(names: Sequence[str], work: Path) -> dict[str, Any]:
    """Run the named runs and return their record, as described at the top of this file."""
    packages = ("numpy", "paddlepaddle", "numba", "onnx", "onnxruntime", "openvino", "Pillow", "matplotlib")
    versions = {found.name: found.version for found in importlib.metadata.distributions() if found.name in packages}
    record: dict[str, Any] = {"machine": {"python": platform.python_version(), "cpus": os.cpu_count(), **versions}}
    runs, notes = record.setdefault("runs", {}), record.setdefault("messages", {})
    draw(work)
    for name in needed(names):
        began = time.perf_counter()
        runs[name], notes[name] = fill(name, RUNS[name], work)
        print(f"{name}: {len(runs[name]['files'])} files, {time.perf_counter() - began:.1f} s", flush=True)
    return record


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield one line for each value that differs; NaN equals NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            place = f"{where}: {key}" if where else str(key)
            if key not in one or key not in other:
                yield f"{place}: only in the {'first' if key in one else 'second'}"
            else:
                yield from differences(one[key], other[key], place)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{where}: {len(one)} -> {len(other)} entries"
        for number, (left, right) in enumerate(zip(one, other)):
            yield from differences(left, right, f"{where}[{number}]")
    elif json.dumps(one) != json.dumps(other):
        yield f"{where}: {json.dumps(one, ensure_ascii=False)[:300]} -> {json.dumps(other, ensure_ascii=False)[:300]}"


def compare(first: Path, second: Path, names: Sequence[str], with_messages: bool) -> int:
    """Print the differences; return 1 if there are any, else 0."""
    one, other = (json.loads(path.read_text("utf-8")) for path in (first, second))
    for note in differences(one["machine"], other["machine"], "different machine"):
        print(note, file=sys.stderr)
    count = 0
    for part in ("runs", "messages") if with_messages else ("runs",):
        left, right = (
            {name: kept for name, kept in each[part].items() if name in (names or each[part])} for each in (one, other)
        )
        for line in differences(left, right):
            count += 1
            print(f"{part}: {line}")
    compared = len(one["runs"].keys() & other["runs"].keys() & set(names or one["runs"]))
    print(f"{count} differences in {compared} runs")
    return int(count > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, help="JSON file to write")
    parser.add_argument("--only", nargs="+", default=[], choices=RUNS, metavar="NAME", help=f"of {', '.join(RUNS)}")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="JSON", help="compare two records")
    parser.add_argument("--messages", action="store_true", help="compare the messages, too")
    arguments = parser.parse_args()
    if arguments.compare:
        first, second = arguments.compare
        return compare(first, second, arguments.only, arguments.messages)
    if arguments.output is None:
        parser.error("expected a JSON file to write, or --compare JSON JSON")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pins-") as folder:
        found = record(arguments.only or list(RUNS), Path(folder))
    arguments.output.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    files = sum(len(each["files"]) for each in found["runs"].values())
    print(f"{arguments.output}: {len(found['runs'])} runs, {files} files, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
