"""What a search found: accuracy by trial, importance of the parameters, accuracy against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.figure import BLUE, ORANGE, PALE, chart, chart_text, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@chart
def draw_search(
    path: PathLike,
    history: Sequence[Optional[float]],
    importance: Mapping[str, float],
    candidates: Sequence[tuple[str, float, float]],
    front: Sequence[str],
    limit: Optional[float],
) -> None:
    """Write three panels; one without anything to show says so.

    Args:
        path: the image to write.
        history: accuracy of each trial in order, from 0 to 1; None: stopped early.
        importance: share of each parameter in the differences of accuracy.
        candidates: name, milliseconds and accuracy of each network that was probed.
        front: names of those than which none is both faster and better.
        limit: milliseconds that were allowed, or None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    trials, shares, speed = figure.subplots(1, 3)
    done = [(number, 100 * value) for number, value in enumerate(history, 1) if value is not None]
    if done:
        numbers, values = zip(*done)
        best = [max(values[: place + 1]) for place in range(len(values))]
        trials.plot(numbers, values, "o", color=BLUE, markersize=5, label=chart_text("trial"))
        trials.step(numbers, best, where="post", color=ORANGE, linewidth=1.8, label=chart_text("best so far"))
        stopped = [number for number, value in enumerate(history, 1) if value is None]
        if stopped:
            trials.plot(stopped, [min(values)] * len(stopped), "x", color=PALE, label=chart_text("stopped early"))
        trials.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        # Below the panel, where no point can hide.
        trials.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    else:
        _empty(trials)
    accuracy = chart_text("accuracy (%)")
    trials.set(title=chart_text("Short trainings"), xlabel=chart_text("trial"), ylabel=accuracy)
    if importance:
        names = sorted(importance, key=lambda name: importance[name])
        shares.barh(names, [100 * importance[name] for name in names], color=BLUE)
    else:
        _empty(shares)
    shares.set(title=chart_text("Importance"), xlabel=chart_text("share of the differences (%)"))
    for name, milliseconds, top1 in candidates:
        best_of = name in front
        speed.plot(milliseconds, 100 * top1, "o", color=BLUE if best_of else PALE, markersize=7)
        speed.annotate(f" {name}", (milliseconds, 100 * top1), fontsize=8, va="bottom")
    if candidates:
        if limit is not None:
            speed.axvline(limit, color=ORANGE, linestyle="--", linewidth=1.2)
        speed.set_xlim(0, 1.5 * max(each[1] for each in candidates))
    else:
        _empty(speed)
    speed.set(title=chart_text("Linear probes"), xlabel=chart_text("ms for one image"), ylabel=accuracy)
    save_figure(figure, path)


def _empty(axes: Axes) -> None:
    text = chart_text("too few trials")
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
