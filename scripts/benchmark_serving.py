"""Measure pplc serve: throughput and time to answer at 1, 8 and 64 clients, against PaddleX's service, in turn.

    python scripts/benchmark_serving.py MODEL FOLDER [--rounds 3] [--only load memory] [--json FILE]

MODEL is an exported folder, FOLDER holds JPEGs. The server and the clients are processes of this machine and share its
cores. Each client sends its next request when the last one is answered; every answer is checked against the label that
``pplc predict`` gives that picture. PaddleX's service takes base64 in JSON, pplc takes the file's bytes and, for
comparison, PaddleX's requests too. The part memory sends 100,000 requests and reads the server's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import yaml

CLIENTS = (1, 8, 64)
REQUESTS = {1: 200, 8: 1000, 64: 2500}  # of one measurement
MEMORY_REQUESTS, MEMORY_CLIENTS = 100_000, 32
SECONDS = 600  # of one measurement at most


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- clients, in a process of their own


def requests_of(files: Sequence[Path], route: str) -> list[bytes]:
    """The bytes of one HTTP request per file."""
    made = []
    for file in files:
        body, kind = file.read_bytes(), "image/jpeg"
        if route == "/image-classification":
            content = {"image": base64.b64encode(body).decode(), "topk": 1, "visualize": False}
            body, kind = json.dumps(content).encode(), "application/json"
        head = (
            f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


def label_of(answer: bytes, route: str) -> str:
    """The best label in an answer."""
    content = json.loads(answer)
    if route == "/image-classification":
        label: str = content["result"]["categories"][0]["name"]
        return label
    top: str = content["predictions"][0]["top"][0]["label"]
    return top


async def client(port: int, numbers: Iterator[int], messages: Sequence[bytes], seconds: list[float],
                 answered: Callable[[int, bytes], None]) -> None:  # fmt: skip
    """Send requests over one connection until the numbers end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        began = time.perf_counter()
        writer.write(messages[number % len(messages)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0]!r} {body[:300]!r}")
        answered(number, body)
    writer.close()


def load(
    port: int, route: str, clients: int, count: int, files: Sequence[Path], labels: Sequence[str]
) -> dict[str, Any]:
    """Send requests from many clients; return the rate, the median and the 99th percentile of the time to answer."""
    messages, seconds, wrong = requests_of(files, route), [], 0

    def answered(number: int, body: bytes) -> None:
        nonlocal wrong
        wrong += label_of(body, route) != labels[number % len(labels)]

    async def run() -> float:
        numbers = iter(range(count))
        began = time.perf_counter()
        tasks = (client(port, numbers, messages, seconds, answered) for _ in range(clients))
        await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)
        return time.perf_counter() - began

    whole = asyncio.run(run())
    seconds.sort()
    return {
        "rate": count / whole,
        "p50": 1e3 * seconds[count // 2],
        "p99": 1e3 * seconds[min(count - 1, round(0.99 * count))],
        "wrong": wrong,
        "answers": len(seconds),
    }


def run_clients(*arguments: Any) -> dict[str, Any]:
    """:func:`load` in a process of its own."""
    command = [sys.executable, __file__, "--clients", json.dumps(arguments, default=str)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- servers


@contextlib.contextmanager
def server(command: Sequence[str], port: int, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    environment = {**os.environ, "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 180
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                    probe.sendall(f"GET {ready} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                    if probe.recv(100).startswith(b"HTTP/1.1 "):
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{' '.join(command)}: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield process
        finally:
            process.terminate()
            process.wait(60)


def pplc_command(model: Path, port: int, precision: str, more: Sequence[str] = ()) -> list[str]:
    """``pplc serve`` as a user starts it."""
    words = [str(model), "--port", str(port), "--precision", precision, *more]
    return [sys.executable, "-m", "pplc_cli", "serve", *words]


def paddlex_command(model: Path, port: int, scratch: Path) -> list[str]:
    """PaddleX's basic serving of its pipeline with this model, as its documentation describes it."""
    name = yaml.safe_load((model / "inference.yml").read_text("utf-8"))["Global"]["model_name"]
    module = {"module_name": "image_classification", "model_name": name, "model_dir": str(model), "batch_size": 1}
    content = {"pipeline_name": "image_classification", "SubModules": {"ImageClassification": {**module, "topk": 1}}}
    file = scratch / "image_classification.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    options = ["--pipeline", str(file), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    return [str(Path(sys.executable).with_name("paddlex")), "--serve", *options]


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


# -- the parts


def predict(model: Path, files: Sequence[Path], precision: str, count: int, scratch: Path) -> tuple[list[str], float]:
    """The labels of ``pplc predict``, and its images per second as it reports them."""
    listing, output = scratch / "list.txt", scratch / "predicted.jsonl"
    listing.write_text("".join(f"{files[i % len(files)]}\n" for i in range(count)), encoding="utf-8")
    command = [sys.executable, "-m", "pplc_cli", "predict", str(listing), "--model", str(model), "--force"]
    command += ["--precision", precision, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PPLC_LANG": "en"})
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    lines = output.read_text("utf-8").splitlines()[: len(files)]
    rate = next(part for part in done.stderr.split(", ") if part.endswith(" images/s"))
    return [json.loads(line)["label"] for line in lines], float(rate.split()[0])


def measure_load(model: Path, files: Sequence[Path], rounds: int, precision: str, scratch: Path) -> dict[str, Any]:
    """All contenders in turn, each round."""
    labels, _ = predict(model, files, precision, len(files), scratch)
    contenders = {
        "pplc": (pplc_command, "/predict"),
        "pplc, PaddleX's requests": (pplc_command, "/image-classification"),
        "PaddleX": (paddlex_command, "/image-classification"),
    }
    rates: list[float] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        rates.append(predict(model, files, precision, REQUESTS[64], scratch)[1])
        for name, (command, route) in contenders.items():
            port = free_port()
            words = command(model, port, scratch if name == "PaddleX" else precision)  # type: ignore[operator]
            with server(words, port, "/health" if name == "PaddleX" else "/readyz"):
                run_clients(port, route, 8, 100, files, labels)  # warm
                for clients in CLIENTS:
                    # PaddleX answers a fraction of the requests in the same time.
                    count = REQUESTS[clients] // (4 if name == "PaddleX" and clients > 1 else 1)
                    one = run_clients(port, route, clients, count, files, labels)
                    found.setdefault(f"{name}, {clients}", []).append(one)
                    print(f"{name}, {clients} clients: {one}", file=sys.stderr, flush=True)
    return {"predict": rates, "load": found}


def measure_memory(model: Path, files: Sequence[Path], precision: str, scratch: Path) -> dict[str, Any]:
    """Memory of the server over many requests, in MB after each tenth."""
    labels, _ = predict(model, files, precision, len(files), scratch)
    port, sizes, wrong, answers = free_port(), [], 0, 0
    with server(pplc_command(model, port, precision), port, "/readyz") as process:
        for _ in range(10):
            one = run_clients(port, "/predict", MEMORY_CLIENTS, MEMORY_REQUESTS // 10, files, labels)
            wrong, answers = wrong + one["wrong"], answers + one["answers"]
            sizes.append(round(resident(process.pid), 1))
            print(f"{answers:,} answers, {wrong} wrong, {sizes[-1]} MB", file=sys.stderr, flush=True)
    return {"answers": answers, "wrong": wrong, "memory": sizes}


def table(found: dict[str, Any], cores: int) -> str:
    """Rows of Markdown."""
    rows = ["| | Result |", "|---|---|"]
    if "load" in found:
        predicted = statistics.median(found["predict"])
        rows.append(f"| `pplc predict` on the same files | {predicted:.0f} images/s |")
        medians = {
            name: {key: statistics.median(one[key] for one in each) for key in ("rate", "p50", "p99")}
            for name, each in found["load"].items()
        }
        for name, one in medians.items():
            rows.append(f"| {name} clients | {one['rate']:.0f} requests/s; median {one['p50']:.1f}, "
                        f"99th percentile {one['p99']:.1f} ms |")  # fmt: skip
        ours, theirs = medians["pplc, 64"]["rate"], medians["PaddleX, 64"]["rate"]
        rows.append(f"| share of `pplc predict`, 64 clients | {ours / predicted:.2f} |")
        rows.append(f"| against PaddleX, 64 clients | {ours / theirs:.1f} x |")
        bound = medians["pplc, 1"]["p50"] * 8 / cores
        rows.append(f"| 99th percentile at 8 clients, of 8 / cores times one client's median | "
                    f"{medians['pplc, 8']['p99'] / bound:.2f} x |")  # fmt: skip
        wrong = {name: sum(one["wrong"] for one in each) for name, each in found["load"].items()}
        rows.append(f"| answers that differ from `pplc predict` | {wrong} |")
    if "memory" in found:
        one = found["memory"]
        rows.append(f"| {one['answers']:,} requests: wrong answers; memory after each tenth | {one['wrong']}; "
                    f"{', '.join(map(str, one['memory']))} MB |")  # fmt: skip
    return "\n".join(rows)


def main() -> None:
    if sys.argv[1:2] == ["--clients"]:
        port, route, clients, count, files, labels = json.loads(sys.argv[2])
        print(json.dumps(load(port, route, clients, count, [Path(file) for file in files], labels)))
        return
    from pplc_cli.base.hardware import cpu_info, physical_cores

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an exported folder")
    parser.add_argument("folder", type=Path, help="a folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the part load (default: %(default)s)")
    parser.add_argument("--images", type=int, default=300, help="different images at most (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of pplc (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=("load", "memory"), default=("load", "memory"))
    parser.add_argument("--json", type=Path, default=Path("benchmark_serving.json"), help="file for all figures")
    arguments = parser.parse_args()
    files = sorted(file.resolve() for file in arguments.folder.rglob("*.jpg"))[: arguments.images]
    model = arguments.model.resolve()
    found: dict[str, Any] = {"cpu": cpu_info().get("model name"), "cores": physical_cores()}
    with tempfile.TemporaryDirectory() as scratch:
        if "load" in arguments.only:
            found.update(measure_load(model, files, arguments.rounds, arguments.precision, Path(scratch)))
        if "memory" in arguments.only:
            found["memory"] = measure_memory(model, files, arguments.precision, Path(scratch))
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(table(found, physical_cores()))


if __name__ == "__main__":
    main()
