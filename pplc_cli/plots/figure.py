"""The one style of all charts, and saving them without a display."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pplc_cli.base.errors import PplcError, one_line
from pplc_cli.base.language.messages import current_language, tr
from pplc_cli.base.storage.files import PathLike, atomic_file
from pplc_cli.plots.fonts import best_font_file, font_file, printable
from pplc_cli.plots.matplotlib import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

Draw = TypeVar("Draw", bound=Callable[..., None])

# Colours of Okabe and Ito, distinct for colour-blind readers and in grey prints.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
BLUES = (BLUE, "#7fb8d8", "#003b5c", "#bfdbeb")
INK, PALE, GRID = "#212529", "#adb5bd", "#d9dce0"
_STYLE = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named "$5 and $10", which is not a formula
    "axes.titlesize": 12,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.dpi": 110,
    "savefig.dpi": "figure",
    "savefig.facecolor": "white",
}


class DrawError(PplcError):
    """A picture cannot be drawn or written. Where it only illustrates a result, a note says so and work goes on."""


def picture(draw: Draw) -> Draw:
    """Decorate a function that writes a picture to its first argument, a path.

    Raises:
        DrawError: the picture cannot be drawn or written, for whatever reason.
    """

    @functools.wraps(draw)
    def drawn(path: PathLike, *args: Any, **options: Any) -> None:
        try:
            draw(path, *args, **options)
        except PplcError as error:
            raise DrawError(str(error)) from error
        except Exception as error:  # fonts, settings, formats: drawing libraries raise errors of all kinds
            raise DrawError(
                tr(
                    "{path} cannot be drawn: {kind}: {reason}",
                    path=path,
                    kind=type(error).__name__,
                    reason=one_line(error),
                )
            ) from error

    return cast("Draw", drawn)


def chart(draw: Draw) -> Draw:
    """Decorate as :func:`picture` does a function that uses Matplotlib: it gets the style above, not the user's."""

    @functools.wraps(draw)
    def styled(*args: Any, **options: Any) -> None:
        matplotlib = load_matplotlib()
        defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
        with matplotlib.rc_context({**defaults, **_STYLE, "font.family": _families()}):
            draw(*args, **options)

    return picture(cast("Draw", styled))


def chart_text(message: str, **values: Any) -> str:
    """Translate a text of a chart as :func:`~pplc_cli.base.language.messages.tr` does; it stays English where no font
    on this machine can draw the translation.
    """
    translated = tr(message, **values)
    if font_file(translated) is not None:
        return translated
    return message.format(**values) if values else message


def _families() -> list[str]:
    """The font families of a chart; Matplotlib takes each character from the first one that has it."""
    cjk = font_file("中文") if current_language() == "zh" else None
    return ["DejaVu Sans", *([_family(cjk)] if cjk is not None else [])]


@functools.cache
def _family(file: Path) -> str:
    """Make a font file known to Matplotlib and return the name of its family."""
    font_manager = load_matplotlib().font_manager
    font_manager.fontManager.addfont(str(file))
    return str(font_manager.FontProperties(fname=str(file)).get_name())


def font_for(texts: Iterable[str], size: float) -> FontProperties:
    """The font for texts of any script, for labels of a chart; ``size`` in points."""
    font_manager = load_matplotlib().font_manager
    return font_manager.FontProperties(fname=str(best_font_file("".join(map(printable, texts)) + "…")), size=size)


def save_figure(figure: Figure, path: PathLike, **options: Any) -> None:
    """Write a figure with the Agg canvas, without a display; ``options`` go to ``Figure.savefig``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with atomic_file(path) as temporary, warnings.catch_warnings():
        # fonts.missing_glyph_hint reports missing characters once, with advice.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure.savefig(temporary, **options)
