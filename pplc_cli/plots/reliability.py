"""Reliability diagram: how often answers are right, by how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Protocol

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.figure import BLUE, GRID, INK, ORANGE, chart, chart_text, save_figure

if TYPE_CHECKING:
    import numpy as np


class Curve(Protocol):
    """See :class:`pplc_cli.training.evaluation.metrics.Reliability`."""

    @property
    def edges(self) -> np.ndarray: ...

    @property
    def confidence(self) -> np.ndarray: ...

    @property
    def accuracy(self) -> np.ndarray: ...

    @property
    def images(self) -> np.ndarray: ...

    @property
    def error(self) -> float: ...


@chart
def draw_reliability(path: PathLike, before: Curve, after: Optional[Curve]) -> None:
    """Write accuracy over confidence, with the number of images by confidence below.

    Args:
        path: the image to write; its suffix chooses the format.
        before: of the network's softmax.
        after: of the calibrated scores; None: not drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    upper.plot((0, 100), (0, 100), color=INK, linewidth=1, linestyle=":", label=chart_text("as sure as right"))
    curves = [("softmax", before, ORANGE, "--")]
    if after is not None:
        curves.append((chart_text("calibrated"), after, BLUE, "-"))
    most = max(int(curve.images.max()) for _, curve, *_ in curves)
    for number, (name, curve, colour, style) in enumerate(curves):
        x, y = 100 * curve.confidence, 100 * curve.accuracy
        text = chart_text("{name}, error {error:.3f}", name=name, error=curve.error)
        upper.plot(x, y, color=colour, linewidth=1.6, linestyle=style, label=text)
        upper.scatter(x, y, s=8 + 60 * curve.images / most, color=colour, zorder=3)
        width = 100 * (curve.edges[1] - curve.edges[0]) / (len(curves) + 0.5)
        starts = 100 * curve.edges[:-1]
        places = [starts[min(int(c * len(starts)), len(starts) - 1)] for c in curve.confidence]
        lower.bar([p + (number + 0.25) * width for p in places], curve.images, width, align="edge", color=colour)
    upper.set(xlim=(0, 100), ylim=(0, 103))
    upper.set(title=chart_text("Are the scores true?"), ylabel=chart_text("right answers (%)"))
    lower.set(xlabel=chart_text("score of the answer (%)"), ylabel=chart_text("images"))
    lower.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    lower.grid(axis="x", color=GRID)
    upper.legend(loc="upper left")
    save_figure(figure, path)
