"""Measure every network: computed against published counts, latency on one thread and on all, training speed.

    python scripts/benchmark_zoo.py [--networks NAME ...] [--json FILE] [--markdown FILE]

Latency: one image of 224 x 224, Paddle Inference with oneDNN, all networks in turn. Training: forward, backward and
Momentum on random images in float32 with pplc's kernels, one process per network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Optional

from benchmark_training import Contender, machine

from pplc_cli.benchmark.compare import compare
from pplc_cli.benchmark.macs import as_printed, count_params_and_macs
from pplc_cli.models.published import PUBLISHED
from pplc_cli.models.registry import build_network, network_names

BATCH, STEPS = 16, 3


def both(computed: float, published: Optional[str], unit: str) -> str:
    """Return the computed figure, and the published one if it differs: ``341.85 M, published 341.86 M``."""
    if published is None:
        return f"{computed / 1e6:.2f}{unit} (none published)"
    ours = as_printed(computed, published)
    return f"{ours} = published" if ours == published else f"{ours}, published {published}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = network_names()
    parser.add_argument("--networks", nargs="+", metavar="NAME", choices=names, default=names, help="default: all")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of the latency measurement (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmark_zoo.json"), help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table of docs/zoo.md")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "batch": BATCH, "networks": {}}
    print(json.dumps(found["machine"]), flush=True)
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
        size = (227, 227) if name.startswith("SqueezeNext") else (224, 224)  # of the published figures
        params, macs = count_params_and_macs(build_network(name, 1000), published.rule, size)
        counts = {"params": params, "macs": macs}
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
