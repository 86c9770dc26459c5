"""Print the results of models, profile, compare and bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Optional

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pplc_cli.benchmark.bench import P99_RUNS, BenchResult
from pplc_cli.benchmark.compare import ComparedNetwork
from pplc_cli.benchmark.design_rules import Finding
from pplc_cli.benchmark.profile import Profile
from pplc_cli.models.catalog import CatalogEntry

_WIDE = 200  # characters per line in a file or a pipe


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    console.print(table)


def _table(*columns: str, left: int = 1) -> Table:
    """Create a table: the first ``left`` columns and the source are left-aligned, the others right-aligned."""
    table = Table()
    for number, column in enumerate(columns):
        text = number < left or column.startswith("source")
        table.add_column(column, justify="left" if text else "right", no_wrap=number == 0)
    return table


def _dump(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def print_models(found: Sequence[CatalogEntry], as_json: bool) -> None:
    """Print one row per network."""
    if as_json:
        _dump([dataclasses.asdict(each) for each in found])
        return
    table = _table("network", "parameters M", "MACs M", "memory access MB", "top-1 %", "weights", "source of the top-1")
    for each in found:
        table.add_row(
            each.name,
            f"{each.params / 1e6:.2f}",
            f"{each.macs / 1e6:.1f}",
            f"{each.memory / 1e6:.1f}",
            _number(each.top1, ".2f"),
            "in the cache" if each.cached else "-",
            Text(each.source),
        )
    _print(table)
    print(f"{len(found)} networks; 224 x 224, 1000 classes. Top-1 as published, on ImageNet; not measured here.")


def _number(value: Optional[float], form: str) -> str:
    return "-" if value is None else format(value, form)


def print_profile(found: Profile, findings: Sequence[Finding], as_json: bool) -> None:
    """Print one row per operation, the totals, and the findings of the design rules."""
    if as_json:
        _dump({**found.to_dict(), "findings": [dataclasses.asdict(finding) for finding in findings]})
        return
    names = "layer|operation|output|params|MACs M|MACs %|MB read|MB written|MAC/byte|ms|time %|GFLOP/s"
    table = _table(*names.split("|"), left=3)
    for op in found.operations:
        kind = op.kind
        if op.weight is not None and op.kind != "matmul":
            kind += f" {op.weight[2]}x{op.weight[3]}" + (f" s{op.stride[0]}" if max(op.stride) > 1 else "")
        table.add_row(
            Text(op.name),
            Text(" ".join([kind, *(f"+{each}" for each in op.fused if each != "batch_norm")])),
            "x".join(map(str, op.made[1:])),
            f"{op.params:,}",
            f"{op.macs / 1e6:.2f}",
            f"{100 * op.macs / max(1, found.macs):.1f}",
            f"{op.read / 1e6:.2f}",
            f"{op.written / 1e6:.2f}",
            f"{op.intensity:.1f}",
            "-" if op.milliseconds is None else f"{op.milliseconds:.3f}",
            "-" if op.milliseconds is None else f"{100 * op.milliseconds / found.milliseconds:.1f}",
            _number(op.gflops, ".1f"),
        )
    table.add_section()
    for kind, spent in sorted(found.other.items(), key=lambda item: -item[1]):
        label = "changes of memory layout" if kind == "reorder" else kind
        table.add_row(f"({label})", *[""] * 8, f"{spent:.3f}", f"{100 * spent / found.milliseconds:.1f}", "")
    share = 100 * found.overhead / found.milliseconds
    table.add_row("(outside oneDNN)", *[""] * 8, f"{found.overhead:.3f}", f"{share:.1f}", "")
    table.add_section()
    read, written = (sum(getattr(op, key) for op in found.operations) for key in ("read", "written"))
    rate = f"{2 * found.macs / found.milliseconds / 1e6:.1f}"
    totals = (f"{found.params:,}", f"{found.macs / 1e6:.2f}", "100.0", f"{read / 1e6:.2f}", f"{written / 1e6:.2f}")
    intensity = f"{found.macs / max(1, read + written):.1f}"
    table.add_row("all", "", "", *totals, intensity, f"{found.milliseconds:.3f}", "100.0", rate)
    _print(table)
    height, width = found.size
    print(
        f"{found.name}, {width} x {height}, batch {found.batch}, {found.threads} threads: {found.milliseconds:.2f} ms. "
        "-: fused into another operation, or run by Paddle."
    )
    if not findings:
        print("No findings by the design rules.")
    for finding in findings:
        where = f"{finding.layer}: " if finding.layer else ""
        cost = f"{finding.rule} ({finding.milliseconds:.2f} ms, {finding.share:.0%})"
        print(f"{cost}: {where}{finding.text}. Suggestion: {finding.advice}.")


def print_comparison(found: Sequence[ComparedNetwork], batch: int, as_json: bool) -> None:
    """Print one row per network."""
    if as_json:
        _dump([dataclasses.asdict(each) for each in found])
        return
    table = _table(
        "network", "parameters M", "MACs M", "latency ms", "quartiles", f"images/s, batch {batch}", "top-1 %", "source"
    )
    for each in found:
        table.add_row(
            Text(each.name),
            f"{each.params / 1e6:.2f}",
            f"{each.macs / 1e6:.1f}",
            f"{each.latency:.2f}",
            "{:.2f} to {:.2f}".format(*each.quartiles),
            f"{each.images_per_second:.0f}",
            _number(each.top1, ".2f"),
            Text(each.source),
        )
    _print(table)


def print_bench(found: BenchResult, as_json: bool) -> None:
    """Print one row per engine and batch size, then the lower bounds, the machine, and the engines that failed."""
    if as_json:
        _dump(found.to_dict())
        return
    names = list(dict.fromkeys(each.model for each in found.measured))
    columns = "model|engine|precision|threads|batch|p50 ms|p90 ms|p99 ms|runs|images/s|start s|differs by"
    several = len(names) > 1
    table = _table(*columns.split("|")[not several :], left=2 + several)
    for each in found.measured:
        times = [_number(value, ".2f") for value in (each.p50, each.p90, each.p99)]
        counts = [str(each.threads), str(each.batch), *times, str(each.runs), f"{each.images_per_second:.0f}"]
        row = [each.engine, each.precision, *counts, f"{each.cold_start:.2f}", f"{each.difference:.1g}"]
        table.add_row(*[Text(each.model)] * several, *row)
    _print(table)
    print(
        f"{', '.join(names)}: network only, without decoding. start: from a new process to its first prediction. "
        f"differs by: largest probability difference from the first engine. p99: shown from {P99_RUNS} runs on."
    )
    for rate in found.rates:
        print(
            f"This machine, {_threads(rate.threads)}: {rate.gflops:.0f} GFLOP/s in a large float32 matrix product, "
            f"{rate.gigabytes:.1f} GB/s in a large copy."
        )
    for bound in found.floors:
        moved = (bound.cost.weights + bound.batch * bound.cost.activations) / 1e6
        print(
            f"Fastest possible in float32, {bound.model}, {_threads(bound.threads)}, batch {bound.batch}: "
            f"{bound.compute:.2f} ms by arithmetic ({bound.cost.macs * bound.batch / 1e6:.0f} M multiply-adds), "
            f"{bound.memory:.2f} ms by memory traffic ({moved:.1f} MB, if no cache holds them)"
        )
    machine = found.machine
    caches = ", ".join(f"{name} {_size(size)}" for name, size in machine["caches"].items())
    print(f"{machine['cpu']}, {machine['cores']} cores; {caches or 'caches unknown'}; {machine['system']}")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    for failed in found.failed:
        print(f"not measured: {failed.model}, {failed.engine} {failed.precision}: {failed.reason}")


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _size(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"
