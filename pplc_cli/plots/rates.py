"""Loss by learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.figure import BLUE, ORANGE, PALE, chart, chart_text, save_figure


@chart
def draw_rates(
    path: PathLike,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float,
    edge: float,
) -> None:
    """Draw the loss of a range test, its moving average, the suggested rate and the edge.

    Args:
        path: the image to write.
        rates: learning rate of each step.
        losses, smoothed: loss of each step, and its moving average.
        suggestion: the rate to train with.
        edge: the highest rate before the loss rose.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=PALE, linewidth=1, label=chart_text("loss of each step"))
    axes.plot(rates, smoothed, color=BLUE, linewidth=2, label=chart_text("moving average"))
    text = chart_text("suggested: {rate:g}", rate=suggestion)
    axes.axvline(suggestion, color=ORANGE, linewidth=2, label=text)
    text = chart_text("the loss rises from {rate:.2g}", rate=edge)
    axes.axvline(edge, color=ORANGE, linewidth=1.2, linestyle="--", label=text)
    top = 1.15 * max(smoothed)
    axes.set(xscale="log", ylim=(0, top), title=chart_text("Range test"))
    axes.set(xlabel=chart_text("learning rate"), ylabel=chart_text("training loss"))
    # Numbers in full: Matplotlib would print powers of ten as formulas, which the style does not parse.
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)
