"""Loss, accuracy and learning rate by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.figure import BLUE, GREEN, ORANGE, chart, chart_text, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@chart
def draw_curves(path: PathLike, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write three panels over the epochs: loss, top-1 accuracy with the best epoch marked, learning rate.

    Args:
        path: the image to write; its suffix chooses the format.
        epochs: records with ``epoch``, ``learning_rate`` and, where known, ``train_loss``, ``train_top1``,
            ``val_loss``, ``val_top1``; accuracies between 0 and 1.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    loss, top1, rate = figure.subplots(1, 3)
    numbers = [int(record["epoch"]) for record in epochs]
    marker = {"marker": "o", "markersize": 6 if len(numbers) == 1 else 3.5} if len(numbers) <= 40 else {}
    for axes, key, factor in ((loss, "loss", 1), (top1, "top1", 100)):
        for part, name, colour, style in (
            ("train", chart_text("training"), ORANGE, "--"),
            ("val", chart_text("validation"), BLUE, "-"),
        ):
            values = _column(epochs, f"{part}_{key}") * factor
            if np.isfinite(values).any():
                axes.plot(numbers, values, color=colour, linestyle=style, linewidth=1.8, label=name, **marker)
    _mark_best(top1, epochs)
    rates = _column(epochs, "learning_rate")
    rate.plot(
        numbers, rates, color=GREEN, linewidth=1.8, drawstyle="steps-mid", label=chart_text("learning rate"), **marker
    )
    if np.nanmax(rates, initial=0) > 0:
        rate.set_ylim(0, 1.08 * float(np.nanmax(rates)))
    # Numbers in full: Matplotlib would print an offset such as 1e-5 above the panel.
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    titles = chart_text("Loss"), chart_text("Top-1 accuracy (%)"), chart_text("Learning rate")
    for axes, name in zip((loss, top1, rate), titles):
        axes.set_title(name)
        axes.set_xlabel(chart_text("epoch"))
        if len(numbers) == 1:
            axes.set_xlim(numbers[0] - 1, numbers[0] + 1)
            axes.set_xticks(numbers)
        elif numbers:
            # At most half an epoch, so that no tick marks an epoch 0.
            space = min(0.5, 0.04 * (numbers[-1] - numbers[0]))
            axes.set_xlim(numbers[0] - space, numbers[-1] + space)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if axes.get_legend_handles_labels()[0]:
            # Below the panel, where no curve can run through it.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    save_figure(figure, path)


def _mark_best(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Mark the best epoch with a star, if any epoch was validated."""
    best = _column(epochs, "val_top1") * 100
    if np.isfinite(best).any():
        # Several epochs may be equally good; the star marks the one whose weights were kept.
        kept = [i for i, record in enumerate(epochs) if record.get("best")]
        index = kept[-1] if kept else int(np.nanargmax(best))
        number = int(epochs[index]["epoch"])
        axes.plot(
            number,
            best[index],
            linestyle="none",
            marker="*",
            markersize=15,
            color=BLUE,
            markeredgecolor="white",
            zorder=5,
            clip_on=False,
            label=chart_text("best: {top1:.2f} % (epoch {number})", top1=best[index], number=number),
        )


def _column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """float64, shape (records,); NaN, which Matplotlib skips, where a record has no such number."""
    values = [record.get(key) for record in records]
    column = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    return np.where(np.isfinite(column), column, np.nan)
