"""Measure inference against PaddleX and other engines: latency, images per second, start, memory.

    python scripts/benchmark_inference.py MODEL FOLDER [--only PART ...] [--isa avx2] [--json FILE]

MODEL is an exported folder. FOLDER holds JPEGs; a list file repeats them until there are --images. ``pplc predict`` and
a script with stock PaddleX run as whole processes, in turn (A B A B), on the same files. All figures are medians of the
rounds; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Optional

import peers_inference
from benchmark_training import LIMITS

from pplc_cli.base.errors import PredictError
from pplc_cli.base.hardware import facts, physical_cores
from pplc_cli.benchmark.targets import find_exported_target
from pplc_cli.benchmark.worker import BenchCase, Worker
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.kernels import instruction_set
from pplc_cli.predict.engines.onnx_source import onnx_source
from pplc_cli.predict.exported_model import read_exported

PARTS = ("latency", "folder", "start", "memory")
OTHERS = ("paddle", "onnxruntime", "openvino")
BATCHES = (1, 4, 8, 16, 32)
SEARCH_IMAGES = 320  # per batch size, to find PaddleX's best one
PART_BATCH = 16  # images per batch when the network is measured alone
READY_SECONDS = 120  # for all processes of a part to be ready
_ready: Any = None  # barrier: the processes of a part start together

PADDLEX = """
import json, sys, time
import paddlex
name, folder, listing, output, batch = sys.argv[1:]
model = paddlex.create_model(name, model_dir=folder, device="cpu")
with open(listing, encoding="utf-8") as file:
    images = file.read().splitlines()
began = time.perf_counter()
with open(output, "w", encoding="utf-8") as file:
    for number, result in enumerate(model.predict(images, batch_size=int(batch))):
        label, score = result["label_names"][0], float(result["scores"][0])
        if number == 0:
            print(label, flush=True)
        file.write(json.dumps({"path": str(result["input_path"]), "label": label, "score": score}) + "\\n")
print(time.perf_counter() - began)
"""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A process that has ended.

    Attributes:
        first: seconds to its first line on standard output.
        whole: seconds to its end.
        printed: lines of standard output.
        memory: (seconds, resident bytes) while it ran; empty unless watched.
    """

    first: float
    whole: float
    printed: list[str]
    memory: list[tuple[float, int]] = dataclasses.field(default_factory=list)


def run(command: Sequence[str], *, watch: float = 0.0) -> Finished:
    """Run a process that must succeed; ``watch``: interval between readings of its memory, seconds; 0: none."""
    environment = {**os.environ, "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        assert process.stdout is not None
        memory = []
        if watch:
            while process.poll() is None:
                with contextlib.suppress(OSError, StopIteration):
                    memory.append((time.perf_counter() - began, _resident(process.pid)))
                time.sleep(watch)
        printed = [process.stdout.readline()]
        first = time.perf_counter() - began
        printed += process.stdout.readlines()
        if process.wait() != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(command)[:300]}: {errors.read().decode('utf-8', 'replace')[-2000:]}")
    return Finished(first, time.perf_counter() - began, [line.rstrip("\n") for line in printed], memory)


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) << 10


@dataclasses.dataclass(frozen=True)
class Contest:
    """``pplc predict`` and PaddleX on the same model.

    Attributes:
        folder: the exported model.
        name: PaddleX's name of the model.
        scratch: folder for lists and predictions.
        settings: options of ``pplc predict`` that differ from the defaults: engine, precision.
    """

    folder: Path
    name: str
    scratch: Path
    settings: dict[str, str]

    def listing(self, files: Sequence[Path], count: int) -> Path:
        """Write a list file of ``count`` images that repeats the files in order."""
        path = self.scratch / f"{count}.txt"
        lines = itertools.islice(itertools.cycle(str(file.absolute()) for file in files), count)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def pplc(self, listing: Path, **options: Any) -> Finished:
        """Run ``pplc predict`` on a list, to a file."""
        output = self.scratch / "pplc.jsonl"
        return run([*self._command(listing), "--output", str(output), "--force"], **options)

    def pplc_one(self, image: Path) -> Finished:
        """Run ``pplc predict`` on one image, with output on the terminal."""
        return run(self._command(image))

    def _command(self, images: Path) -> list[str]:
        command = [sys.executable, "-m", "pplc_cli", "predict", str(images), "--model", str(self.folder)]
        return command + [word for name, value in self.settings.items() for word in (f"--{name}", value)]

    def paddlex(self, listing: Path, batch: int) -> Finished:
        """Run stock PaddleX on a list, to a file; it prints its first label, then the seconds spent predicting."""
        arguments = (self.name, str(self.folder), str(listing), str(self.scratch / "paddlex.jsonl"), str(batch))
        return run([sys.executable, "-c", PADDLEX, *arguments])

    def labels(self, who: str) -> list[str]:
        """Read the labels of the last run of ``pplc`` or ``paddlex``."""
        lines = (self.scratch / f"{who}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["label"] for line in lines]


# -- the parts ---------------------------------------------------------------------------------------------------------


def latency(folder: Path, rounds: int, precision: str) -> dict[str, Any]:
    """Measure the network alone, all engines in turn: one image, and batches of :data:`PART_BATCH`.

    In int8 only engines that read an int8 export take part, and pplc in float32 for comparison.
    """
    size, threads = find_exported_target(str(folder), folder).size, physical_cores()
    running: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in ("pplc", *OTHERS):
        for width in dict.fromkeys(("float32", precision) if name == "pplc" else (precision,)):
            label = name if width == precision else f"{name} {width}"
            try:
                running[label] = Worker(BenchCase(folder.name, str(folder), name, width, threads, size))
            except PredictError as error:
                failed[label] = str(error)
    for name in peers_inference.available() if precision == "float32" else ():
        try:
            model = onnx_source(folder)
            content = model if isinstance(model, bytes) else model.read_bytes()
            running[name] = peers_inference.Peer(name, content, size, threads)
        except (PredictError, subprocess.CalledProcessError) as error:
            failed[name] = str(error)
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for batch in (1, PART_BATCH):
            for name, worker in running.items():
                times.setdefault((name, batch), []).append(1e3 * statistics.median(worker.run(batch, 1.0)))
    for worker in running.values():
        worker.close()
    medians = {batch: {name: statistics.median(times[name, batch]) for name in running} for batch in (1, PART_BATCH)}
    found: dict[str, Any] = {"failed": failed, "rounds": {f"{name}, {batch}": t for (name, batch), t in times.items()}}
    for batch, each in medians.items():
        others = {name: ms for name, ms in each.items() if not name.startswith("pplc")}
        fastest = min(others, key=others.__getitem__) if others else "-"
        ratio = each["pplc"] / others[fastest] if others and "pplc" in each else None
        found[f"batch {batch}"] = {"ms": each, "fastest": fastest, "ratio": ratio}
    first = next(iter(running.values())).scores
    found["difference"] = {name: float(abs(worker.scores - first).max()) for name, worker in running.items()}
    return found


def best_batch(contest: Contest, files: Sequence[Path], rounds: int) -> tuple[int, dict[int, float]]:
    """Find PaddleX's fastest batch size; return it, and images per second of predicting alone at each size."""
    listing = contest.listing(files, SEARCH_IMAGES)
    rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(rounds):
        for batch in BATCHES:
            rates[batch].append(SEARCH_IMAGES / float(contest.paddlex(listing, batch).printed[-1]))
    medians = {batch: statistics.median(each) for batch, each in rates.items()}
    return max(medians, key=medians.__getitem__), medians


def folder_rate(
    contest: Contest, files: Sequence[Path], count: int, rounds: int, batch: Optional[int]
) -> dict[str, Any]:
    """Measure both on the same list in turn, and decoding and the network alone.

    The rates leave out the start of the process: (count - 1) images over the time for ``count`` images minus the time
    for one.
    """
    by_batch: dict[int, float] = {}
    if batch is None:
        batch, by_batch = best_batch(contest, files, min(2, rounds))
    one, many = contest.listing(files, 1), contest.listing(files, count)
    keys = ("pplc", "pplc_whole", "paddlex", "paddlex_whole", "decode", "network")
    rates: dict[str, list[float]] = {key: [] for key in keys}
    for _ in range(rounds):
        for who, predict in (("pplc", contest.pplc), ("paddlex", lambda listing: contest.paddlex(listing, batch))):
            few, all_ = predict(one).whole, predict(many).whole
            rates[who].append((count - 1) / (all_ - few))
            rates[f"{who}_whole"].append(count / all_)
        for kind in ("decode", "network"):
            rates[kind].append(part_rate(kind, contest, many, min(count, 1000)))
    parts = [1 / (1 / a + 1 / b) for a, b in zip(rates["decode"], rates["network"])]
    ours, theirs = contest.labels("pplc"), contest.labels("paddlex")
    return {
        "pictures": count,
        "batch": batch,
        "paddlex_by_batch": by_batch,
        "images_per_second": {key: statistics.median(each) for key, each in rates.items()},
        "parts": statistics.median(parts),
        "ratio": _ratio(rates["pplc"], rates["paddlex"]),
        "ratio_whole": _ratio(rates["pplc_whole"], rates["paddlex_whole"]),
        "share": _ratio(rates["pplc"], parts),
        "agreement": sum(a == b for a, b in zip(ours, theirs)) / max(len(ours), len(theirs)),
        "rounds": rates,
    }


def _ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others))


def part_rate(kind: str, contest: Contest, listing: Path, count: int) -> float:
    """Measure images per second of decoding or of the network alone, with one independent process per core."""
    context = multiprocessing.get_context("spawn")
    cores = physical_cores()
    ready = context.Barrier(cores, timeout=READY_SECONDS)
    with ProcessPoolExecutor(cores, context, initializer=_set_barrier, initargs=(ready,)) as pool:
        work = [pool.submit(_part, kind, contest, listing, number, cores, count) for number in range(cores)]
        slowest = max(each.result() for each in work)
    return cores * (count // cores) / slowest


def _set_barrier(ready: Any) -> None:
    global _ready
    _ready = ready


def _part(kind: str, contest: Contest, listing: Path, number: int, cores: int, count: int) -> float:
    """Process one core's share of the images and return the seconds."""
    from pplc_cli import Predictor
    from pplc_cli.data.decode import read_image

    predictor = Predictor(contest.folder, threads=1, **contest.settings)
    engine = predictor.engine
    files = listing.read_text(encoding="utf-8").splitlines()[number:count:cores][: count // cores]
    batch = predictor.input.empty(PART_BATCH)
    for place in range(PART_BATCH):
        predictor.input.write(read_image(files[place % len(files)]), batch, place)
    predictor.input.run(engine, batch, PART_BATCH)
    _ready.wait()
    began = time.perf_counter()
    if kind == "network":
        for begin in range(0, len(files), PART_BATCH):
            images = min(PART_BATCH, len(files) - begin)
            predictor.input.run(engine, batch[:images], images)
    else:
        for place, file in enumerate(files):
            predictor.input.write(read_image(file), batch, place % PART_BATCH)
    return time.perf_counter() - began


def start(contest: Contest, image: Path, rounds: int) -> dict[str, Any]:
    """Measure the time from the start of the process to the first prediction, for one image."""
    listing = contest.listing([image], 1)
    times: dict[str, list[float]] = {"pplc": [], "paddlex": []}
    for number in range(rounds + 1):
        pair = {"pplc": contest.pplc_one(image).first, "paddlex": contest.paddlex(listing, 1).first}
        for who, seconds in pair.items():
            if number:  # the first pair warms the disk cache
                times[who].append(seconds)
    medians = {who: statistics.median(each) for who, each in times.items()}
    return {"seconds": medians, "ratio": _ratio(times["pplc"], times["paddlex"]), "rounds": times}


def memory(contest: Contest, files: Sequence[Path], count: int) -> dict[str, Any]:
    """Record the resident memory while ``pplc predict`` classifies ``count`` images."""
    done = contest.pplc(contest.listing(files, count), watch=0.25)
    ends = done.memory[-1][0]
    quarters = [
        max(size for seconds, size in done.memory if low * ends / 4 <= seconds <= (low + 1) * ends / 4) / 1e6
        for low in range(4)
    ]
    return {
        "pictures": count,
        "answers": len(contest.labels("pplc")),
        "seconds": done.whole,
        "highest_mb_by_quarter": quarters,
        "growth_mb": quarters[3] - quarters[1],
        "resident": done.memory,
    }


# -- the report --------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """Format the measured parts as a Markdown table, with the required value and the goal of each."""
    lines = ["| | Target | Goal | Result | Details |", "|---|---|---|---|---|"]

    def row(name: str, target: str, goal: str, result: str, details: str) -> None:
        lines.append(f"| {name} | {target} | {goal} | {result} | {details} |")

    if "latency" in found:
        for name, each in ((key, got) for key, got in found["latency"].items() if key.startswith("batch")):
            detail = ", ".join(f"{engine} {ms:.2f} ms" for engine, ms in each["ms"].items())
            ratio = "-" if each["ratio"] is None else f"{each['ratio']:.2f} x"
            row(f"network alone, {name}, against the fastest other engine", "1.0 x", "0.9 x", ratio, detail)
        for engine, reason in found["latency"]["failed"].items():
            row(f"{engine} took no part", "", "", "", reason)
    if "folder" in found:
        got, rates = found["folder"], found["folder"]["images_per_second"]
        detail = (
            f"{rates['pplc']:.0f} against {rates['paddlex']:.0f} images/s (PaddleX at batch {got['batch']}), "
            "without the start of the process"
        )
        row("folder to labels on disk, against stock PaddleX", "4 x", "7 x", f"{got['ratio']:.2f} x", detail)
        detail = f"{rates['pplc_whole']:.0f} against {rates['paddlex_whole']:.0f} images/s, {got['pictures']} images"
        row("the same, whole processes", "", "", f"{got['ratio_whole']:.2f} x", detail)
        detail = f"decoding {rates['decode']:.0f}, network {rates['network']:.0f}, both {got['parts']:.0f} images/s"
        name = "share of the rate that decoding and the network alone would allow"
        row(name, "0.8", "0.95", f"{got['share']:.2f}", detail)
    if "start" in found:
        got, seconds = found["start"], found["start"]["seconds"]
        detail = f"{seconds['pplc']:.2f} s against {seconds['paddlex']:.2f} s"
        row("start of the process to the first prediction", "0.33 x", "0.2 x", f"{got['ratio']:.2f} x", detail)
    if "memory" in found:
        got = found["memory"]
        detail = f"{got['pictures']} images; peak in each quarter of the time, MB: " + ", ".join(
            f"{size:.0f}" for size in got["highest_mb_by_quarter"]
        )
        row("growth of memory, second to last quarter", "none", "none", f"{got['growth_mb']:+.1f} MB", detail)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an exported folder")
    parser.add_argument("folder", type=Path, help="a folder of JPEGs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per figure (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1500, help="images of the folder part (default: %(default)s)")
    parser.add_argument("--memory-images", type=int, default=20_000, help="of the memory part (default: %(default)s)")
    parser.add_argument("--paddlex-batch", type=int, help="default: the best of " + ", ".join(map(str, BATCHES)))
    parser.add_argument("--engine", help="of pplc predict, for all parts except latency")
    parser.add_argument("--precision", help="of pplc predict, and of all engines in the part latency")
    parser.add_argument("--isa", choices=LIMITS, help="instruction set, also of engines that can be told")
    parser.add_argument("--json", type=Path, default=Path("benchmark_inference.json"), help="file for all figures")
    arguments = parser.parse_args()
    os.environ.update(LIMITS.get(arguments.isa, {}))
    files = [path for path in list_files(arguments.folder) if is_image_name(path)]
    if not files:
        sys.exit(f"{arguments.folder} holds no images; expected JPEGs")
    settings = {name: value for name in ("engine", "precision") if (value := getattr(arguments, name))}
    about = {**facts(), "instruction_set": instruction_set()}
    found: dict[str, Any] = {"machine": about, "settings": settings}
    print(json.dumps(found["machine"]), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        contest = Contest(arguments.model, read_exported(arguments.model).name, Path(scratch), settings)
        measures = {
            "latency": lambda: latency(arguments.model, arguments.rounds, arguments.precision or "float32"),
            "folder": lambda: folder_rate(contest, files, arguments.images, arguments.rounds, arguments.paddlex_batch),
            "start": lambda: start(contest, files[0], arguments.rounds),
            "memory": lambda: memory(contest, files, arguments.memory_images),
        }
        for part in PARTS:
            if part in arguments.only:
                found[part] = measures[part]()
                print(f"{part}: measured", flush=True)
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(table(found))
    if rates := found.get("folder", {}).get("paddlex_by_batch"):
        print("\nPaddleX by batch size: " + ", ".join(f"{batch}: {rate:.0f} images/s" for batch, rate in rates.items()))
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
