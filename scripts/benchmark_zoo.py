"""Every network: published against computed counts, latency on one thread and on all, images a second in training.

    python scripts/benchmark_zoo.py [--networks NAME ...] [--json FILE] [--markdown FILE]

Latency is Paddle Inference's with oneDNN for one image of 224 x 224, all networks in turn. Training is forward,
backward and Momentum on random images in float32 with the fast kernels, a process a network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Optional

from benchmark_training import Contender, machine

from pplc_cli.benchmark.compare import compare
from pplc_cli.benchmark.macs import as_printed
from pplc_cli.models.catalog import list_networks
from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.registry import network_names

BATCH, STEPS = 16, 3


def both(computed: float, published: Optional[str], unit: str) -> str:
    """``2.96 = 2.96``, ``341.85 / 341.86 M``: computed, then published where it differs."""
    if published is None:
        return f"{computed / 1e6:.2f}{unit} (none published)"
    mine = as_printed(computed, published)
    return f"{mine} = published" if mine == published else f"{mine}, published {published}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", metavar="NAME", choices=network_names(), default=network_names())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmark_zoo.json"))
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "batch": BATCH, "networks": {}}
    print(json.dumps(found["machine"]), flush=True)
    listed = {each.name: each for each in list_networks()}
    one = compare(arguments.networks, batch=1, threads=1, rounds=arguments.rounds)
    every = compare(arguments.networks, batch=1, rounds=arguments.rounds)
    lines = [
        "| network | parameters, M | multiply-adds | ms, 1 thread | ms, all | images/s in training |",
        "|---|---|---|---|---|---|",
    ]
    for name, single, whole in zip(arguments.networks, one, every):
        contender = Contender("pplc", name, BATCH, 224)
        contender.run(STEPS)
        rate = contender.result()["images_per_second"]
        contender.close()
        published = PUBLISHED[name]
        counts = {"params": listed[name].params, "macs": listed[name].macs}
        times = {"latency_one": single.latency, "latency_all": whole.latency, "training": rate}
        found["networks"][name] = {**counts, **times}
        counted = f"{both(counts['params'], published.params, '')} | {both(counts['macs'], published.macs, ' M')}"
        lines.append(f"| {name} | {counted} | {single.latency:.2f} | {whole.latency:.2f} | {rate:.1f} |")
        print(lines[-1], flush=True)
    arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
