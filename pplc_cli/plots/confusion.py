"""The confusion matrix as a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.figure import GRID, INK, PALE, chart, chart_text, font_for, save_figure
from pplc_cli.plots.fonts import printable
from pplc_cli.plots.text import display_width, shortened_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_WRITTEN = 30  # with more classes, counts would be illegible


def row_shares(matrix: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Divide counts by the sum of their row: float64, same shape; NaN in rows without images."""
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


@chart
def draw_confusion(path: PathLike, matrix: Sequence[Sequence[int]] | np.ndarray, labels: Sequence[str]) -> None:
    """Write a confusion matrix: rows are true classes, columns predicted classes, colours shares of the row.

    Args:
        path: the image to write; its suffix chooses the format.
        matrix: counts, shape (classes, classes).
        labels: class names. With more than about 200 classes only every second, third, ... is written.
    """
    from matplotlib import colors
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    counts = np.asarray(matrix, dtype=np.int64)
    shares = row_shares(counts)
    classes = len(counts)
    written = classes <= _MOST_WRITTEN
    side = min(max(3.2, classes * (0.5 if written else 0.085)), 17.0)  # inches
    cell = side * 72 / classes  # points
    # The panel fills the figure. Names, titles and the colour bar lie outside; saving makes room for them.
    figure = Figure(figsize=(side, side), dpi=140 if written else 170)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(False)
    axes.spines[:].set_visible(True)
    blues = colors.LinearSegmentedColormap.from_list("shares", ["#ffffff", "#9ecae1", "#3182bd", "#08306b"])
    colour_map = blues.with_extremes(bad="#e3e3e3")  # a class without images
    # With hundreds of classes a cell is a pixel, so small shares are drawn darker to be seen.
    norm = colors.Normalize(0, 1) if written else colors.PowerNorm(0.5, 0, 1)
    drawn = axes.imshow(np.ma.masked_invalid(shares), cmap=colour_map, norm=norm, interpolation="nearest")
    _write_names(axes, labels, cell)
    if written:
        _write_counts(axes, counts, shares, cell)
    heading = 11 if side < 8 else 16
    total = int(counts.sum())
    if total:
        right = int(np.trace(counts))
        title = chart_text("{right} of {total} right ({share:.1%})", right=right, total=total, share=right / total)
        axes.set_title(title, fontsize=heading, pad=10)
    axes.set_xlabel(chart_text("predicted class"), fontsize=heading, labelpad=8)
    axes.set_ylabel(chart_text("true class"), fontsize=heading, labelpad=8)
    scale = figure.add_axes((1 + 0.2 / side, 0, (0.14 if side < 8 else 0.25) / side, 1))
    bar = figure.colorbar(drawn, cax=scale, format=PercentFormatter(1, decimals=0))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1] if written else [0, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.tick_params(labelsize=heading - 2)
    bar.set_label(chart_text("share of the true class"), fontsize=heading - 1)
    bar.outline.set_visible(False)
    save_figure(figure, path, bbox_inches="tight", pad_inches=0.2)


def _write_names(axes: Axes, labels: Sequence[str], cell: float) -> None:
    """Write the class names beside rows and columns of ``cell`` points; leave out some if they would overlap."""
    every = math.ceil(5.5 / cell) if cell < 5.5 else 1  # smaller letters would be illegible
    size = min(10.0, 0.8 * cell * every)
    font = font_for(labels, size)
    names = shortened_names([printable(label) for label in labels], 32)
    ticks = list(range(0, len(labels), every))
    longest = max((display_width(name) for name in names), default=0)
    tilt: dict[str, Any] = {}
    if longest * size * 0.62 > cell * every * 0.9:
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        tilt = slanted if len(labels) <= _MOST_WRITTEN else {"rotation": 90}
    axes.set_yticks(ticks)
    axes.set_xticks(ticks)
    axes.set_yticklabels([names[tick] for tick in ticks], fontproperties=font)
    axes.set_xticklabels([names[tick] for tick in ticks], fontproperties=font, **tilt)
    axes.tick_params(length=2, pad=2)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """Write the counts into their cells of ``cell`` points, and draw a grid between the cells."""
    digits = len(str(int(counts.max(initial=0))))
    for row, column in np.ndindex(*counts.shape):
        count = int(counts[row, column])
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=min(11.0, cell * 0.4, cell * 1.3 / digits),
            # Zeros are paler than the numbers that matter.
            color="white" if shares[row, column] > 0.55 else (INK if count else PALE),
        )
    axes.set_xticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID)
    axes.tick_params(which="minor", length=0)
