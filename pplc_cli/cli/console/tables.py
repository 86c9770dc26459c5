"""Print the results of models, profile, compare and bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Optional

import click

from pplc_cli.base.language.messages import tr, trn
from pplc_cli.benchmark.bench import P99_RUNS, BenchResult
from pplc_cli.benchmark.compare import ComparedNetwork
from pplc_cli.benchmark.design_rules import Finding
from pplc_cli.benchmark.disturbance import Disturbance
from pplc_cli.benchmark.operations import Operation
from pplc_cli.benchmark.profile import Profile
from pplc_cli.cli.console.layout import Column, print_table, say
from pplc_cli.models.catalog import CatalogEntry
from pplc_cli.training.evaluation.metrics import accuracy_text

_SHORT = {"depthwise_conv2d": "depthwise", "conv2d": "conv"}


def _dump(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def print_models(found: Sequence[CatalogEntry], as_json: bool) -> None:
    """Print one row per network."""
    if as_json:
        _dump([dataclasses.asdict(each) for each in found])
        return
    columns = [
        Column(tr("network"), text=True),
        Column(tr("params M"), optional=3),
        Column(tr("MACs M")),
        Column(tr("memory MB"), optional=4),
        Column("top-1 %"),
        Column(tr("weights"), text=True, optional=2),
        Column(tr("here"), text=True, optional=1),
        Column(tr("source of the top-1"), text=True, optional=5),
    ]
    rows = [
        [
            each.name,
            f"{each.params / 1e6:.2f}",
            f"{each.macs / 1e6:.1f}",
            f"{each.memory / 1e6:.1f}",
            _number(each.top1, ".2f"),
            ", ".join(each.weights) or tr("none"),
            tr("yes") if each.cached else tr("no"),
            each.source,
        ]
        for each in found
    ]
    print_table(columns, rows)
    say(
        tr(
            "Networks: {count}, at 224 x 224 with 1000 classes. memory: bytes that the operations "
            "read and write. top-1: as published, on ImageNet; not measured here. weights: values "
            "for --pretrained; builtin comes with pplc, the others come in a package or are downloaded "
            "once into the cache. here: the ImageNet weights are on this machine; training starts from "
            "them without network.",
            count=len(found),
        )
    )


def _number(value: Optional[float], form: str) -> str:
    return "-" if value is None else format(value, form)


def print_profile(found: Profile, findings: Sequence[Finding], as_json: bool) -> None:
    """Print one row per operation, the totals, and the findings of the design rules."""
    if as_json:
        _dump({**found.to_dict(), "findings": [dataclasses.asdict(finding) for finding in findings]})
        _warn(found.disturbance)
        return
    columns = [
        Column(tr("layer"), text=True),
        Column(tr("operation"), text=True),
        Column(tr("output"), text=True, optional=4),
        Column(tr("params"), optional=9),
        Column(tr("MACs M"), optional=3),
        Column(tr("MACs %"), optional=1),
        Column(tr("MB read"), optional=7),
        Column(tr("MB written"), optional=8),
        Column(tr("MAC/byte"), optional=6),
        Column("ms"),
        Column(tr("time %")),
        Column("GFLOP/s", optional=5),
    ]
    empty = [""] * 8
    rest = [
        [f"({tr(kind)})", *empty, f"{spent:.3f}", f"{100 * spent / found.accounted:.1f}", ""]
        for kind, spent in found.rest()
    ]
    read, written = (sum(getattr(op, key) for op in found.operations) for key in ("read", "written"))
    totals = [
        tr("all"), "", "", f"{found.params:,}", f"{found.macs / 1e6:.2f}", "100.0", f"{read / 1e6:.2f}",
        f"{written / 1e6:.2f}", f"{found.macs / max(1, read + written):.1f}", f"{found.milliseconds:.3f}", "100.0",
        f"{2 * found.macs / found.milliseconds / 1e6:.1f}",
    ]  # fmt: skip
    print_table(columns, [_operation_row(found, op) for op in found.operations], rest, [totals])
    height, width = found.size
    say(
        tr(
            "{name}, {width} x {height}, batch {batch}, {threads} threads: {milliseconds:.2f} ms. -: "
            "fused into another operation, or run by Paddle.",
            name=found.name,
            width=width,
            height=height,
            batch=found.batch,
            threads=found.threads,
            milliseconds=found.milliseconds,
        )
    )
    _warn(found.disturbance)
    if found.disturbance.disturbed:
        return
    if not findings:
        say(tr("The design rules find nothing to improve."))
    for finding in findings:
        text = tr("{layer}: {text}", layer=finding.layer, text=finding.text) if finding.layer else finding.text
        say(
            tr(
                "{rule} ({milliseconds:.2f} ms, {share:.0%}): {text}. Suggestion: {advice}.",
                rule=tr(finding.rule),
                milliseconds=finding.milliseconds,
                share=finding.share,
                text=text,
                advice=finding.advice,
            )
        )


def _operation_row(found: Profile, op: Operation) -> list[str]:
    kind = _SHORT.get(op.kind, op.kind)
    if op.weight is not None and op.kind != "matmul":
        kind += f" {op.weight[2]}x{op.weight[3]}" + (f" s{op.stride[0]}" if max(op.stride) > 1 else "")
    return [
        op.name,
        " ".join([kind, *(f"+{each}" for each in op.fused if each != "batch_norm")]),
        "x".join(map(str, op.made[1:])),
        f"{op.params:,}",
        f"{op.macs / 1e6:.2f}",
        f"{100 * op.macs / max(1, found.macs):.1f}",
        f"{op.read / 1e6:.2f}",
        f"{op.written / 1e6:.2f}",
        f"{op.intensity:.1f}",
        _number(op.milliseconds, ".3f"),
        "-" if op.milliseconds is None else f"{100 * op.milliseconds / found.accounted:.1f}",
        _number(op.gflops, ".1f"),
    ]


def _warn(found: Disturbance) -> None:
    """Say that the times are not to be used, if other work disturbed them."""
    if not found.disturbed:
        return
    if found.busy_cpus is not None:
        click.echo(
            tr("Other processes kept {count:.1f} CPUs busy during the measurement.", count=found.busy_cpus),
            err=True,
        )
    click.echo(
        tr("Repeated times differ by {spread:.0%} (their quartiles, as a share of the median).", spread=found.spread),
        err=True,
    )
    click.echo(tr("warning: do not use these times; measure again when the machine has nothing else to do"), err=True)


def print_comparison(found: Sequence[ComparedNetwork], batch: int, as_json: bool) -> None:
    """Print one row per network."""
    if as_json:
        _dump([dataclasses.asdict(each) for each in found])
    else:
        _print_comparison(found, batch)
    for each in found[:1]:  # all were measured in turn
        _warn(each.disturbance)


def _print_comparison(found: Sequence[ComparedNetwork], batch: int) -> None:
    columns = [
        Column(tr("network"), text=True),
        Column(tr("params M"), optional=3),
        Column(tr("MACs M")),
        Column(tr("classes"), optional=3),
        Column(tr("latency ms")),
        Column(tr("quartiles"), optional=4),
        Column(tr("images/s"), optional=1),
        Column("top-1", text=True),
        Column(tr("source of the top-1"), text=True, optional=5),
    ]
    rows = [
        [
            each.name,
            f"{each.params / 1e6:.2f}",
            f"{each.macs / 1e6:.1f}",
            str(each.classes),
            f"{each.latency:.2f}",
            tr("{first:.2f} to {third:.2f}", first=each.quartiles[0], third=each.quartiles[1]),
            f"{each.images_per_second:.0f}",
            _top1(each),
            each.source,
        ]
        for each in found
    ]
    print_table(columns, rows)
    say(tr("MACs: multiply-adds of one image. Latency: of one image. images/s: in batches of {batch}.", batch=batch))


def _top1(each: ComparedNetwork) -> str:
    if each.top1 is None:
        return "-"
    return accuracy_text(each.top1 / 100, each.images) if each.measured else f"{each.top1:.2f}%"


def print_bench(found: BenchResult, as_json: bool) -> None:
    """Print one row per engine and batch size, then the lower bounds, the machine, and the engines that failed."""
    if as_json:
        _dump(found.to_dict())
        _warn(found.disturbance)
        return
    names = list(dict.fromkeys(each.model for each in found.measured))
    several = {key: len({getattr(each, key) for each in found.measured}) > 1 for key in ("precision", "threads")}
    columns = [
        *([Column(tr("model"), text=True)] if len(names) > 1 else []),
        Column(tr("engine"), text=True),
        Column("precision", text=True, optional=0 if several["precision"] else 3),
        Column(tr("threads"), optional=0 if several["threads"] else 4),
        Column(tr("batch")),
        Column("p50 ms"),
        Column("p90 ms", optional=2),
        Column("p99 ms", optional=5),
        Column(tr("runs"), optional=8),
        Column(tr("images/s"), optional=1),
        Column(tr("start s"), optional=6),
        Column(tr("differs by"), optional=7),
    ]
    rows = [
        [
            *([each.model] if len(names) > 1 else []),
            each.engine,
            each.precision,
            str(each.threads),
            str(each.batch),
            *(_number(value, ".2f") for value in (each.p50, each.p90, each.p99)),
            str(each.runs),
            f"{each.images_per_second:.0f}",
            f"{each.cold_start:.2f}",
            f"{each.difference:.1g}",
        ]
        for each in found.measured
    ]
    print_table(columns, rows)
    say(
        tr(
            "{models}: network only, without decoding. start: from a new process to its first "
            "prediction. differs by: largest probability difference from the first engine. p99: "
            "shown from {runs} runs on.",
            models=", ".join(names),
            runs=P99_RUNS,
        )
    )
    for rate in found.rates:
        say(
            tr(
                "This machine, {threads}: {gflops:.0f} GFLOP/s in a large float32 matrix product, "
                "{gigabytes:.1f} GB/s in a large copy.",
                threads=_threads(rate.threads),
                gflops=rate.gflops,
                gigabytes=rate.gigabytes,
            )
        )
    for bound in found.floors:
        moved = (bound.cost.weights + bound.batch * bound.cost.activations) / 1e6
        say(
            tr(
                "Fastest possible in float32, {model}, {threads}, batch {batch}: {compute:.2f} ms by "
                "arithmetic ({macs:.0f} M multiply-adds), {memory:.2f} ms by memory traffic ({moved:.1f} "
                "MB, if no cache holds them)",
                model=bound.model,
                threads=_threads(bound.threads),
                batch=bound.batch,
                compute=bound.compute,
                macs=bound.cost.macs * bound.batch / 1e6,
                memory=bound.memory,
                moved=moved,
            )
        )
    machine = found.machine
    caches = ", ".join(f"{name} {_size(size)}" for name, size in machine["caches"].items())
    say(
        tr(
            "{cpu}, {cores} cores; {caches}; {system}",
            cpu=machine["cpu"],
            cores=machine["cores"],
            caches=caches or tr("caches unknown"),
            system=machine["system"],
        )
    )
    if machine["instruction_set"]:
        say(tr("instruction set of pplc's kernels: {name}", name=machine["instruction_set"]))
    say(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    for failed in found.failed:
        say(
            tr(
                "not measured: {model}, {engine} {precision}: {reason}",
                model=failed.model,
                engine=failed.engine,
                precision=failed.precision,
                reason=failed.reason,
            )
        )
    _warn(found.disturbance)


def _threads(count: int) -> str:
    return trn("{count} thread", "{count} threads", count)


def _size(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"
