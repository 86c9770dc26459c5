"""Save a Matplotlib figure."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pplc_cli.base.storage.files import PathLike, atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: PathLike, **options: Any) -> None:
    """Write a figure on white without a display; ``options`` go to ``Figure.savefig``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with atomic_file(path) as temporary, warnings.catch_warnings():
        # fonts.missing_glyph_hint reports missing characters once, with advice.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure.savefig(temporary, facecolor="white", **options)
