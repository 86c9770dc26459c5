"""Measure how fast light networks train on this CPU: pplc, Paddle's own kernels, and PyTorch if it is installed.

    python scripts/benchmark_training.py --data datasets/flowers5 --json benchmark_training.json

Each contender is a separate process that waits while another one computes. All are timed in turn, several rounds;
medians and quartiles are printed. A step is forward, backward and Momentum on random images in float32, for PyTorch
also in bfloat16. With --data, ``pplc train`` is timed on image files, too. With --isa avx2, nobody uses AVX-512.

PyTorch is optional: pip install torch torchvision timm pytorchcv. torch.compile needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Optional

import peers_torch

from pplc_cli.models.registry import network_names

CLASSES = 5
TABLE = [(name, 32) for name in ("PPLCNet_x0_25", "PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5")] + [
    ("PPLCNet_x1_0", 4)
]
# What keeps the libraries of the other contenders from using AVX-512.
LIMITS = {"avx2": {"PPLC_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
                   "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}}  # fmt: skip


# -- contenders: each function returns one that does a single step -----------------------------------------------------


def paddle_step(network_name: str, batch: int, size: int, fast: bool) -> Callable[[], Any]:
    """Paddle with its own kernels, or with pplc's (``fast``)."""
    import numpy as np

    if fast:
        from pplc_cli.base.paddle import load_paddle

        paddle = load_paddle()
    else:
        import paddle
    from pplc_cli.models.registry import build_network

    network = build_network(network_name, CLASSES, dropout=0.2)
    if fast:
        from pplc_cli.kernels import accelerate

        reason = accelerate(network)
        if reason:
            sys.exit(reason)
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=network.parameters(), weight_decay=1e-4)
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32))
    labels = paddle.to_tensor(np.arange(batch) % CLASSES)

    def step() -> None:
        paddle.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad()

    return step


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(kind: str, network: str, batch: int, size: int) -> None:
    """Run a contender's process: each line on standard input is a number of steps; reply with the seconds of each."""
    if kind in peers_torch.KINDS:
        step = peers_torch.training_step(kind, network, CLASSES, batch, size)
    else:
        step = paddle_step(network, batch, size, kind == "pplc")
    for _ in range(2):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        print(json.dumps({"seconds": times, "memory": peak_memory()}), flush=True)


class Contender:
    """A process that runs training steps on request, and the rates measured so far."""

    def __init__(self, kind: str, network: str, batch: int, size: int) -> None:
        self.kind, self.batch = kind, batch
        self.rates: list[float] = []
        self.memory = 0
        command = [sys.executable, __file__, "--serve", kind, network, str(batch), str(size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        while self._line() != "ready":
            pass

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.kind} ended unexpectedly")
        return line.strip()

    def run(self, steps: int) -> None:
        """Run ``steps`` steps and record the rate of each."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        reply = json.loads(self._line())
        self.rates += [self.batch / seconds for seconds in reply["seconds"]]
        self.memory = reply["memory"]

    def result(self) -> dict[str, Any]:
        """Return median and quartiles of images per second, and the peak memory in bytes."""
        low, median, high = statistics.quantiles(self.rates, n=4)
        return {"images_per_second": median, "quartiles": [low, high], "memory": self.memory, "steps": len(self.rates)}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# -- measurements ------------------------------------------------------------------------------------------------------


def in_turn(contenders: list[Contender], rounds: int) -> list[dict[str, Any]]:
    """Measure the contenders in turn, about two seconds each per round, and end their processes."""
    for contender in contenders:
        contender.run(1)
    steps = [max(2, round(2 * contender.rates[-1] / contender.batch)) for contender in contenders]
    for contender in contenders:
        contender.rates.clear()
    for _ in range(rounds):
        for contender, count in zip(contenders, steps):
            contender.run(count)
    results = [contender.result() for contender in contenders]
    for contender in contenders:
        contender.close()
    return results


def compare(kinds: list[str], network: str, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """Measure all contenders on one network."""
    return dict(zip(kinds, in_turn([Contender(kind, network, batch, size) for kind in kinds], rounds)))


def small_batches(network: str, size: int, rounds: int) -> float:
    """Measure pplc's rate at batch 4 as a share of its rate at batch 32."""
    small, large = in_turn([Contender("pplc", network, batch, size) for batch in (4, 32)], rounds)
    return small["images_per_second"] / large["images_per_second"]


def end_to_end(data: str, network: str, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """Measure ``pplc train`` on image files with augmentation, in turn with the bare step."""
    from pplc_cli.training.runs.run_folder import RunFolder

    bare = Contender("pplc", network, batch, size)
    rates: list[float] = []
    first_epoch: list[float] = []
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            bare.run(8)
            output = Path(folder) / str(number)
            command = [sys.executable, "-m", "pplc_cli", "train", "--dataset", data, "--output", str(output)]
            command += ["--model", network, "--pretrained", "none", "--epochs", "3", "--batch-size", str(batch)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}: {done.stderr}")
            epochs = RunFolder(output).epochs()
            first_epoch.append(epochs[0]["images_per_second"])
            rates.append(len(epochs) / sum(1 / epoch["images_per_second"] for epoch in epochs))
            waits.append(sum(epoch["data_wait"] for epoch in epochs))
    result = {"bare": bare.result(), "train": statistics.median(rates), "first_epoch": statistics.median(first_epoch)}
    bare.close()
    return {**result, "data_wait": statistics.median(waits), "runs": rates}


def profile(network_name: str, batch: int, size: int) -> list[dict[str, Any]]:
    """Measure each operation of a step: milliseconds (the least of eight steps), GFLOP, and GB that it cannot avoid."""
    import numpy as np

    from pplc_cli.base.paddle import load_paddle

    paddle = load_paddle()
    from pplc_cli.kernels import accelerate
    from pplc_cli.kernels.train import program
    from pplc_cli.models.registry import build_network

    network = build_network(network_name, CLASSES, dropout=0.2)
    accelerate(network)
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32))
    network(images).sum().backward()
    found: list[dict[str, Any]] = []
    run = program.ThreadTeam.run
    position = 0

    def one_by_one(team: Any, ops: Any, scratch: int) -> None:
        nonlocal position
        for index in range(len(ops)):
            began = time.perf_counter()
            run(team, ops[index : index + 1], scratch)
            spent = (time.perf_counter() - began) * 1e3
            if position == len(found):
                op = ops[index]
                shape = {key: int(op[key]) for key in ("n", "ci", "co", "kh", "sh", "h_in", "ho")}
                name = program.Code(int(op["code"])).name.lower()
                found.append({"operation": name, **shape, **arithmetic(name, op), "ms": spent})
            found[position]["ms"] = min(found[position]["ms"], spent)
            position += 1

    program.ThreadTeam.run = one_by_one
    for _ in range(8):
        position = 0
        network(images).sum().backward()
        network.clear_gradients()
    program.ThreadTeam.run = run
    return found


def arithmetic(name: str, op: Any) -> dict[str, float]:
    """Count the GFLOP of a convolution, and the GB of its inputs and results if each is moved once."""
    inputs, results = (int(op["n"] * op[h] * op[w] * op[c]) for h, w, c in (("h_in", "w_in", "ci"), ("ho", "wo", "co")))
    if name.startswith("depthwise"):
        results = int(op["n"] * op["ho"] * op["wo"] * op["ci"])
        each = 2 * results * int(op["kh"]) ** 2
    elif name.startswith("dense"):
        each = 2 * results * int(op["kh"] * op["kw"] * op["ci"])
    else:
        return {"gflop": 0.0, "gb": 0.0}
    backward = "backward" in name
    products = (bool(op["dx"]) + bool(op["dw"])) if backward else 1
    moved = inputs * (1 + bool(op["dx"])) + 2 * results if backward else inputs + results
    return {"gflop": each * products / 1e9, "gb": 4 * moved / 1e9}


def machine_limits() -> dict[str, float]:
    """Measure what the machine can do: GFLOP/s of a large matrix product in float32, GB/s of a copy in memory."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((3072, 3072)).astype(np.float32)
    source, target = np.ones(1 << 26, np.float32), np.empty(1 << 26, np.float32)
    best = [float("inf")] * 2
    for _ in range(6):
        for number, work in enumerate((lambda: a @ a, lambda: np.copyto(target, source))):
            began = time.perf_counter()
            work()
            best[number] = min(best[number], time.perf_counter() - began)
    return {"gflop_per_s": 2 * 3072**3 / best[0] / 1e9, "gb_per_s": 2 * source.nbytes / best[1] / 1e9}


def print_profile(found: list[dict[str, Any]], limits: dict[str, float]) -> None:
    """Print the time of each kind of operation, with its rates."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in found:
        groups.setdefault(entry["operation"], []).append(entry)
    whole = sum(entry["ms"] for entry in found)
    print(f"one step: {whole:.0f} ms; this machine: {limits['gflop_per_s']:.0f} GFLOP/s in a large matrix product, "
          f"{limits['gb_per_s']:.0f} GB/s in a copy on one thread")  # fmt: skip
    for operation, entries in sorted(groups.items(), key=lambda item: -sum(entry["ms"] for entry in item[1])):
        spent, gflop, gb = (sum(entry[key] for entry in entries) for key in ("ms", "gflop", "gb"))
        rates = f"{gflop / spent * 1e3:6.0f} GFLOP/s {gb / spent * 1e3:5.1f} GB/s" if gflop else ""
        print(f"  {operation:22} {spent:7.2f} ms  {spent / whole:6.1%}  {rates}")


# -- the report --------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Describe the CPU and the versions of the packages."""
    from pplc_cli.base.hardware import cpu_info, physical_cores
    from pplc_cli.kernels import instruction_set

    model = cpu_info().get("model name") or platform.processor()
    packages = ("pplc", "paddlepaddle", "numba", "llvmlite", "numpy", "torch", "torchvision", "timm", "pytorchcv")
    versions = {name: _version(name) for name in packages}
    about = {"cpu": model, "instruction_set": instruction_set(), "cores": physical_cores()}
    return {**about, "python": platform.python_version(), "versions": versions}


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def print_results(network: str, batch: int, results: dict[str, Any]) -> None:
    """Print one line per contender."""
    ours = results["pplc"]
    for kind, result in results.items():
        low, high = result["quartiles"]
        line = (
            f"{network:22} {batch:3}  {kind:23} {result['images_per_second']:7.1f} images/s ({low:.1f} to {high:.1f})"
        )
        line += f"  {result['memory'] / 1e6:6.0f} MB"
        if kind != "pplc":
            speed = ours["images_per_second"] / result["images_per_second"]
            line += f"  pplc: {speed:.2f} x as fast, {ours['memory'] / result['memory']:.2f} x the memory"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a data set after pplc split; also times pplc train on its files")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per contender (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="image side, pixels (default: %(default)s)")
    parser.add_argument(
        "--networks",
        nargs="*",
        metavar="NAME",
        choices=network_names(),
        help="default: those of docs/benchmarks.md; --networks without a name: none",
    )
    parser.add_argument("--isa", choices=LIMITS, help="instruction set of all contenders (default: the best)")
    parser.add_argument("--no-profile", action="store_true", help="do not time the operations of a step")
    parser.add_argument("--json", type=Path, default=Path("benchmark_training.json"), help="file for all figures")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        kind, network, batch, size = arguments.serve
        serve(kind, network, int(batch), int(size))
        return
    if arguments.isa:
        os.environ.update(LIMITS[arguments.isa])
    from pplc_cli.base.paddle import load_paddle

    load_paddle()
    found: dict[str, Any] = {"machine": machine(), "size": arguments.size, "step": []}
    print(json.dumps(found["machine"]))
    table = TABLE if arguments.networks is None else [(name, 32) for name in arguments.networks]
    for network, batch in table:
        others = peers_torch.KINDS if peers_torch.knows(network) else ()
        if not others:
            print(f"{network}: PyTorch, or the package that has this network, is not installed")
        results = compare(["pplc", "paddle", *others], network, batch, arguments.size, arguments.rounds)
        print_results(network, batch, results)
        found["step"].append({"network": network, "batch": batch, **results})
    if ("PPLCNet_x1_0", 4) in table:
        found["batch_4_share"] = small_batches("PPLCNet_x1_0", arguments.size, arguments.rounds)
        print(f"PPLCNet_x1_0 at batch 4 reaches {found['batch_4_share']:.2f} of its rate at batch 32")
    if arguments.data:
        result = end_to_end(arguments.data, "PPLCNet_x1_0", 32, arguments.size, max(2, arguments.rounds // 2))
        found["end_to_end"] = result
        share = result["train"] / result["bare"]["images_per_second"]
        print(
            f"pplc train on files: {result['train']:.1f} images/s, {share:.2f} of the bare step's "
            f"{result['bare']['images_per_second']:.1f}; first epoch {result['first_epoch']:.1f}; "
            f"{result['data_wait']:.2f} s spent waiting for data"
        )
    if not arguments.no_profile:
        profiled = table[0][0] if len(table) == 1 else "PPLCNet_x1_0"
        found["profile"] = profile(profiled, 32, arguments.size)
        found["limits"] = machine_limits()
        print(f"{profiled}, batch 32:")
        print_profile(found["profile"], found["limits"])
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
