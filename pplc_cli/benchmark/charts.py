"""Charts of profiles, comparisons and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pplc_cli.benchmark.bench import BenchResult, Measurement
from pplc_cli.benchmark.compare import ComparedNetwork
from pplc_cli.benchmark.profile import Profile
from pplc_cli.plots.figure import BLUE, BLUES, ORANGE, chart, chart_text, font_for, save_figure
from pplc_cli.plots.fonts import printable
from pplc_cli.plots.text import shortened_names

_NAME_WIDTH = 48  # letters


@chart
def draw_profile(path: Path, found: Profile) -> None:
    """Draw each layer's share of the time beside its share of the multiply-adds; both sum to 100 %."""
    from matplotlib.figure import Figure

    shown = [op for op in found.operations if op.milliseconds or op.macs]
    rest = [(kind, spent) for kind, spent in found.rest() if spent]
    names = [*(op.name for op in shown), *(f"({kind})" for kind, _ in rest)]
    times = [*(op.milliseconds or 0 for op in shown), *(spent for _, spent in rest)]
    macs = [*(op.macs for op in shown), *(0 for _ in rest)]
    places = range(len(names))
    figure = Figure(figsize=(9, 1.5 + 0.22 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [y - 0.2 for y in places], [100 * time / found.accounted for time in times], 0.4, color=BLUE,
        label=chart_text("time ({milliseconds:.2f} ms)", milliseconds=found.milliseconds),
    )  # fmt: skip
    axes.barh(
        [y + 0.2 for y in places], [100 * each / max(1, found.macs) for each in macs], 0.4, color=ORANGE,
        label=chart_text("multiply-adds ({millions:.1f} M)", millions=found.macs / 1e6),
    )  # fmt: skip
    axes.set_yticks(list(places), _written(names), fontproperties=font_for(names, 7))
    axes.set_ylim(len(names) - 0.3, -0.7)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(chart_text("share of the total, %"))
    height, width = found.size
    title = chart_text(
        "{name}, {width} x {height}, batch {batch}, {threads} threads",
        name=found.name,
        width=width,
        height=height,
        batch=found.batch,
        threads=found.threads,
    )
    axes.set_title(title, fontproperties=font_for([title], 11))
    figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, path)


@chart
def draw_comparison(path: Path, found: Sequence[ComparedNetwork]) -> None:
    """Plot accuracy against latency, for networks whose accuracy is known."""
    from matplotlib.figure import Figure

    shown = [each for each in found if each.top1 is not None]
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for measured, colour, label in (
        (True, ORANGE, chart_text("measured on a validation list")),
        (False, BLUE, chart_text("published, ImageNet")),
    ):
        group = [each for each in shown if each.measured == measured]
        if group:
            heights = [each.top1 or 0 for each in group]
            axes.scatter([each.latency for each in group], heights, color=colour, label=label)
    names = [each.name for each in shown]
    for each, name in zip(shown, _written(names)):
        axes.annotate(
            name, (each.latency, each.top1), xytext=(4, 4), textcoords="offset points",
            fontproperties=font_for(names, 8),
        )  # fmt: skip
    axes.set_title(chart_text("Accuracy and latency of one image"))
    axes.set_xlabel(chart_text("latency of one image, ms"))
    axes.set_ylabel(chart_text("top-1, %"))
    axes.margins(0.15)
    if shown:
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))
        figure.legend(loc="outside lower center", ncols=2)
    else:
        text = chart_text("no accuracy is known of these networks")
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
    save_figure(figure, path)


@chart
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
        parts += [chart_text("{threads} threads", threads=each.threads)] if several["threads"] else []
        return ", ".join(parts)

    rows = list(dict.fromkeys(map(label, found.measured)))
    figure = Figure(figsize=(11, 2.1 + (0.35 + 0.15 * len(batches)) * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(batches)
    for each in found.measured:
        row = rows.index(label(each))
        number = batches.index(each.batch)
        place = row + (number - (len(batches) - 1) / 2) * height
        right.barh(place, each.images_per_second, height, color=BLUES[number % len(BLUES)])
        if number == 0:
            spread = [[0], [(each.p99 or each.p90) - each.p50]]
            left.barh(row, each.p50, 0.6, color=BLUE, xerr=spread, capsize=3)
    for bound in found.floors:
        if bound.batch == batches[0]:
            left.axvline(bound.compute, color=ORANGE, linestyle="--")
        right.axvline(1e3 * bound.batch / bound.compute, color=ORANGE, linestyle="--")
    left.set_yticks(range(len(rows)), _written(rows), fontproperties=font_for(rows, 9))
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_xlabel(_latency_label(batches[0]))
    right.set_xlabel(chart_text("images per second"))
    handles: list[Any] = [
        Patch(color=BLUES[n % len(BLUES)], label=chart_text("batch {batch}", batch=batch))
        for n, batch in enumerate(batches)
    ]
    bound_text = chart_text("lower bound: multiply-adds at the machine's peak rate")
    handles.append(Line2D([], [], color=ORANGE, linestyle="--", label=bound_text))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    title = f"{', '.join(dict.fromkeys(each.model for each in found.measured))}: {found.machine['cpu']}"
    figure.suptitle(title, fontproperties=font_for([title], 11))
    save_figure(figure, path)


def _latency_label(batch: int) -> str:
    return "\n".join(
        (
            chart_text("latency of a batch of {batch}, ms", batch=batch),
            chart_text("bar: median; line: to the 99th (or 90th) percentile"),
        )
    )


def _written(names: Sequence[str]) -> list[str]:
    return shortened_names([printable(name) for name in names], _NAME_WIDTH)
