"""Draw where a network looks in an image."""

from __future__ import annotations

import numpy as np

from pplc_cli.base.storage.files import PathLike
from pplc_cli.plots.annotate import image_note
from pplc_cli.plots.figure import chart, chart_text, font_for, save_figure
from pplc_cli.plots.fonts import printable
from pplc_cli.plots.matplotlib import load_matplotlib
from pplc_cli.plots.text import shortened

MARK = "pplc explain"  # in the files' metadata: no other file is replaced
_COLOURS = "inferno"  # readable for colour-blind people and in grey prints
_SHARE = 0.6  # of the colours in the overlay


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend an image, uint8 RGB (H, W, 3), with a heat map, float32 (H, W) from 0 to 1: uint8 RGB (H, W, 3)."""
    colours = load_matplotlib().colormaps[_COLOURS](heat)[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True)
    return (_SHARE * colours + (1 - _SHARE) * grey).round().astype(np.uint8)


@chart
def draw_heat_map(path: PathLike, image: np.ndarray, heat: np.ndarray, name: str, title: str) -> None:
    """Write the image, the overlay of its heat map, and a colour bar.

    Args:
        path: the image to write; its suffix chooses the format.
        image: what the network sees, uint8 RGB (H, W, 3).
        heat: float32 (H, W), 0 to 1.
        name: of the image.
        title: what is explained, as in "panda 98 %".
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, pixels, text in ((left, image, name), (right, overlay(image, heat), title)):
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(shortened(printable(text), 38), fontproperties=font_for([text], 11))
    bar = figure.colorbar(ScalarMappable(cmap=_COLOURS), ax=[left, right], shrink=0.85, pad=0.02)
    bar.set_label(chart_text("weight in the answer, of its maximum"))
    bar.outline.set_visible(False)
    save_figure(figure, path, dpi=130, metadata={"Software": MARK})


def is_heat_map(path: PathLike) -> bool:
    """Whether :func:`draw_heat_map` wrote a file."""
    return image_note(path, "Software") == MARK
