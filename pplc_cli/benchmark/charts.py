"""Charts of profiles, comparisons and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pplc_cli.benchmark.bench import BenchResult, Measurement
from pplc_cli.benchmark.compare import ComparedNetwork
from pplc_cli.benchmark.profile import Profile
from pplc_cli.plots.figure import save_figure

_BLUE, _ORANGE = "#3b6fb6", "#e08a2e"
_SHADES = (_BLUE, "#8fb1dd", "#254a7c", "#bcd0ea")


def draw_profile(path: Path, found: Profile) -> None:
    """Draw each layer's share of the time beside its share of the multiply-adds."""
    from matplotlib.figure import Figure

    shown = [op for op in found.operations if op.milliseconds or op.macs]
    figure = Figure(figsize=(9, 1.5 + 0.22 * len(shown)), dpi=110, layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    times = [100 * (op.milliseconds or 0) / found.milliseconds for op in shown]
    macs = [100 * op.macs / max(1, found.macs) for op in shown]
    axes.barh([y - 0.2 for y in places], times, 0.4, color=_BLUE, label=f"time ({found.milliseconds:.2f} ms)")
    axes.barh([y + 0.2 for y in places], macs, 0.4, color=_ORANGE, label=f"multiply-adds ({found.macs / 1e6:.1f} M)")
    axes.set_yticks(list(places), [op.name for op in shown], fontsize=7)
    axes.set_ylim(len(shown) - 0.3, -0.7)
    axes.set_xlabel("share of the total, %")
    height, width = found.size
    axes.set_title(f"{found.name}, {width} x {height}, batch {found.batch}, {found.threads} threads", fontsize=10)
    axes.legend(loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def draw_comparison(path: Path, found: Sequence[ComparedNetwork]) -> None:
    """Plot accuracy against latency, for networks whose accuracy is known."""
    from matplotlib.figure import Figure

    shown = [each for each in found if each.top1 is not None]
    figure = Figure(figsize=(8, 5.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    measured = [each for each in shown if each.measured]
    for group, colour, label in (
        (measured, _ORANGE, "measured on a validation list"),
        ([each for each in shown if not each.measured], _BLUE, "published, ImageNet"),
    ):
        if group:
            axes.scatter(
                [each.latency for each in group], [each.top1 or 0 for each in group], color=colour, label=label
            )
    for each in shown:
        axes.annotate(each.name, (each.latency, each.top1), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("latency of one image, ms")
    axes.set_ylabel("top-1, %")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    if shown:
        axes.legend(loc="lower right")
    save_figure(figure, path)


def draw_bench(path: Path, found: BenchResult) -> None:
    """Draw latency at the smallest batch size, images per second at every batch size, and lower bounds (dashed)."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    batches = sorted({each.batch for each in found.measured})
    several = {key: len({getattr(each, key) for each in found.measured}) > 1 for key in ("model", "threads")}

    def label(each: Measurement) -> str:
        parts = [each.model] if several["model"] else []
        parts += [each.engine] + ([each.precision] if each.precision != "float32" else [])
        return ", ".join([*parts, *([f"{each.threads} threads"] if several["threads"] else [])])

    rows = list(dict.fromkeys(map(label, found.measured)))
    figure = Figure(figsize=(11, 2.1 + (0.35 + 0.15 * len(batches)) * len(rows)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(batches)
    for each in found.measured:
        row = rows.index(label(each))
        number = batches.index(each.batch)
        place = row + (number - (len(batches) - 1) / 2) * height
        right.barh(place, each.images_per_second, height, color=_SHADES[number % len(_SHADES)])
        if number == 0:
            spread = [[0], [(each.p99 or each.p90) - each.p50]]
            left.barh(row, each.p50, 0.6, color=_BLUE, xerr=spread, capsize=3)
    for bound in found.floors:
        if bound.batch == batches[0]:
            left.axvline(bound.compute, color=_ORANGE, linestyle="--")
        right.axvline(1e3 * bound.batch / bound.compute, color=_ORANGE, linestyle="--")
    left.set_yticks(range(len(rows)), rows)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel(f"latency of a batch of {batches[0]}, ms: median, whisker to the 99th (or 90th) percentile")
    right.set_xlabel("images per second")
    handles: list[Any] = [
        Patch(color=_SHADES[n % len(_SHADES)], label=f"batch {batch}") for n, batch in enumerate(batches)
    ]
    handles.append(
        Line2D([], [], color=_ORANGE, linestyle="--", label="lower bound: multiply-adds at the machine's peak rate")
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(
        f"{', '.join(dict.fromkeys(each.model for each in found.measured))}: {found.machine['cpu']}", fontsize=10
    )
    save_figure(figure, path)
