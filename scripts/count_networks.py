"""Count every network's parameters, multiply-adds and memory access, and write pplc_cli/models/counts.json.

python scripts/count_networks.py
"""

from __future__ import annotations

import argparse
import json

from pplc_cli.base.paddle import load_paddle


def counts(name: str) -> dict[str, int]:
    """Count what ``pplc models`` prints: parameters, multiply-adds, and bytes read and written."""
    from pplc_cli.benchmark.macs import count_params_and_macs
    from pplc_cli.benchmark.operations import operations
    from pplc_cli.models.registry import build_network

    network = build_network(name, 1000)
    params, macs = count_params_and_macs(network)
    memory = sum(operation.read + operation.written for operation in operations(network)[1])
    return {"params": params, "macs": macs, "memory": memory}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    load_paddle()
    from pplc_cli.models.catalog import COUNTS
    from pplc_cli.models.registry import network_names

    COUNTS.write_text(json.dumps({name: counts(name) for name in network_names()}, indent=1) + "\n", encoding="utf-8")
    print(f"written to {COUNTS}")


if __name__ == "__main__":
    main()
