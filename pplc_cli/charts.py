"""Plots of profiles and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .comparing import Compared
from .pictures import save_figure
from .profiling import Profile

_BLUE, _ORANGE = "#3b6fb6", "#e08a2e"


def draw_profile(path: Path, found: Profile) -> None:
    """Time beside multiply-adds, layer by layer: where the bars differ in length, FLOPs are not time."""
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
    axes.set_xlabel("share of the whole, %")
    height, width = found.size
    axes.set_title(f"{found.name}, {width} x {height}, batch {found.batch}, {found.threads} threads", fontsize=10)
    axes.legend(loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def draw_comparison(path: Path, found: Sequence[Compared]) -> None:
    """Accuracy against latency; networks without a known accuracy are left out."""
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
    axes.set_xlabel("latency of one picture, ms")
    axes.set_ylabel("top-1, %")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    if shown:
        axes.legend(loc="lower right")
    save_figure(figure, path)
