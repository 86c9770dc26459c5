"""Measure how fast light networks train on this CPU: pplc, Paddle's own kernels, and PyTorch if it is installed.

    python scripts/benchmark_training.py --data datasets/flowers5 --json benchmark_training.json

Each contender is a separate process that waits while another one computes. All are timed in turn, several rounds;
medians and quartiles are printed. PyTorch is optional: pip install torch. A step is forward, backward and Momentum on
random images in float32. With --data, ``pplc train`` is timed on image files, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any, Callable, Optional

from pplc_cli.models.registry import network_names

CLASSES = 5
TABLE = [(name, 32) for name in ("PPLCNet_x0_25", "PPLCNet_x0_5", "PPLCNet_x1_0", "PPLCNet_x2_5")] + [
    ("PPLCNet_x1_0", 4)
]


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


def torch_step(network_name: str, batch: int, size: int) -> Callable[[], Any]:
    """PyTorch, eager and channels last, with the same network built from pplc's table."""
    import numpy as np
    import torch
    from torch import nn

    from pplc_cli.models.families.layers import make_divisible
    from pplc_cli.models.families.pplcnet import HEAD, STAGES, STEM, WIDTHS

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        layers = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layers, nn.BatchNorm2d(outputs), nn.Hardswish())

    class SqueezeExcite(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

        def forward(self, x: Any) -> Any:
            weights = nn.functional.relu(self.conv1(x.mean((2, 3), keepdim=True)))
            return x * nn.functional.hardsigmoid(self.conv2(weights))

    width = WIDTHS[network_name]
    channels = make_divisible(STEM * width)
    layers = [conv(3, channels, 3, 2)]
    for row in (row for rows in STAGES.values() for row in rows):
        layers.append(conv(channels, channels, row.kernel, row.stride, channels))
        layers += [SqueezeExcite(channels)] if row.se else []
        outputs = make_divisible(row.outputs * width)
        layers.append(conv(channels, outputs, 1))
        channels = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, HEAD, 1, bias=False), nn.Hardswish(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(HEAD, CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32))
    images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % CLASSES

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(kind: str, network: str, batch: int, size: int) -> None:
    """Run a contender's process: each line on standard input is a number of steps; reply with the seconds of each."""
    step = torch_step(network, batch, size) if kind == "torch" else paddle_step(network, batch, size, kind == "pplc")
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
    """Measure the milliseconds of each operation of a step; the minimum of eight steps."""
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
                shape = {key: int(op[key]) for key in ("ci", "co", "kh", "sh", "h_in")}
                found.append({"operation": program.Code(int(op["code"])).name.lower(), **shape, "ms": spent})
            found[position]["ms"] = min(found[position]["ms"], spent)
            position += 1

    program.ThreadTeam.run = one_by_one
    for _ in range(8):
        position = 0
        network(images).sum().backward()
        network.clear_gradients()
    program.ThreadTeam.run = run
    return found


# -- the report --------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Describe the CPU and the versions of the packages."""
    from pplc_cli.base.hardware import cpu_info, physical_cores

    model = cpu_info().get("model name") or platform.processor()
    versions = {name: _version(name) for name in ("pplc", "paddlepaddle", "numba", "llvmlite", "numpy", "torch")}
    return {"cpu": model, "cores": physical_cores(), "python": platform.python_version(), "versions": versions}


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
        line = f"{network:14} {batch:3}  {kind:7} {result['images_per_second']:7.1f} images/s ({low:.1f} to {high:.1f})"
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
    parser.add_argument("--no-profile", action="store_true", help="do not time the operations of a step")
    parser.add_argument("--json", type=Path, default=Path("benchmark_training.json"), help="file for all figures")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        kind, network, batch, size = arguments.serve
        serve(kind, network, int(batch), int(size))
        return
    from pplc_cli.base.paddle import load_paddle

    load_paddle()
    from pplc_cli.models.families.pplcnet import WIDTHS

    found: dict[str, Any] = {"machine": machine(), "size": arguments.size, "step": []}
    print(json.dumps(found["machine"]))
    kinds = ["pplc", "paddle"] + (["torch"] if util.find_spec("torch") else [])
    if len(kinds) == 2:
        print("PyTorch is not installed, so it is left out (pip install torch)")
    table = TABLE if arguments.networks is None else [(name, 32) for name in arguments.networks]
    for network, batch in table:
        able = [kind for kind in kinds if kind != "torch" or network in WIDTHS]  # torch_step builds only PP-LCNet
        results = compare(able, network, batch, arguments.size, arguments.rounds)
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
        found["profile"] = profile("PPLCNet_x1_0", 32, arguments.size)
        totals: dict[str, float] = {}
        for entry in found["profile"]:
            totals[entry["operation"]] = totals.get(entry["operation"], 0) + entry["ms"]
        print(f"one step of PPLCNet_x1_0, batch 32: {sum(totals.values()):.0f} ms")
        for operation, spent in sorted(totals.items(), key=lambda item: -item[1]):
            print(f"  {operation:20} {spent:7.2f} ms  {spent / sum(totals.values()):5.1%}")
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
