"""Pictures of a run: contact sheets, labelled photographs, training curves and confusion matrices."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from pplc_cli.base.files import PathLike, atomic_file
from pplc_cli.plots.fonts import best_font_file, find_font, font_file, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

_INK = (33, 37, 41)
_PALE = (243, 244, 246)
_LABELLED_WIDTH = 96  # pixels; a label on less cannot be read
# Two colours of Okabe and Ito that stay apart for colour-blind readers and in grey print.
_TRAIN, _VAL, _RATE = "#E69F00", "#0072B2", "#009E73"


def contact_sheet(
    path: PathLike,
    tiles: Sequence[tuple[np.ndarray, Sequence[str]]],
    columns: int = 6,
    side: int = 176,
    title: str = "",
) -> None:
    """Write a sheet of square tiles with captions below.

    Args:
        path: the picture to write; its suffix chooses the format.
        tiles: (picture, caption lines) each; pictures are uint8 RGB of shape (height, width, 3).
        columns: tiles in a row, at most.
        side: width and height of a tile in pixels.
        title: a line above all tiles.
    """
    gap, size = max(6, side // 12), max(11, side // 13)
    columns = max(1, min(columns, len(tiles)))
    captions = [[printable(line) for line in lines] for _, lines in tiles]
    fonts = _fonts([line for lines in captions for line in lines], size)
    step = max((sum(font.getmetrics()) for font in fonts.values()), default=0) + 1
    # Every row is as high as its own longest caption.
    heights = [
        side + (5 + step * most if most else 0)
        for start in range(0, len(tiles), columns)
        for most in [max(len(lines) for lines in captions[start : start + columns])]
    ]
    width = gap + columns * (side + gap)
    title = printable(title)
    title_font = find_font(title + "…", round(size * 1.5))
    head = gap
    if title:
        width = max(width, min(2 * gap + math.ceil(title_font.getlength(title)), gap + 6 * (side + gap)))
        head = 2 * gap + sum(title_font.getmetrics())
    height = head + sum(heights) + gap * max(1, len(heights)) + (gap // 2) * max(0, len(heights) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), _trimmed(title, title_font, width - 2 * gap), fill=_INK, font=title_font)
    top = head
    for row, row_height in enumerate(heights):
        for column in range(columns):
            index = row * columns + column
            if index == len(tiles):
                break
            left = gap + column * (side + gap)
            sheet.paste(_letterboxed(tiles[index][0], side), (left, top))
            for number, line in enumerate(captions[index]):
                draw.text(
                    (left, top + side + 5 + number * step + fonts[line].getmetrics()[0]),
                    _trimmed(line, fonts[line], side),
                    # The first line is the name, the others say more about it.
                    fill=_INK if number == 0 else (90, 97, 105),
                    font=fonts[line],
                    anchor="ls",
                )
        top += row_height + gap + gap // 2
    with atomic_file(path) as temporary:
        sheet.save(temporary)


def annotate(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """A copy of a picture with lines of text on a banner in its top left corner.

    Args:
        image: uint8 RGB, shape (height, width, 3).
        lines: what to write, best first.

    Returns:
        uint8 RGB of the same shape; larger where the picture is too small to carry text: a narrow one is scaled up
        to 96 pixels, and a flat one gets the banner above it.
    """
    lines = [printable(line) for line in lines]
    if not lines:
        return np.array(image)
    canvas = _wide_enough(Image.fromarray(image))
    width, height = canvas.size
    size = max(12, round(min(width, height) / 28))
    while True:
        pad = max(3, size // 3)
        fonts = _fonts(lines, size)
        longest = max(fonts[line].getlength(line) for line in lines)
        if longest <= width - 2 * pad or size <= 11:
            break
        # Text is nearly proportional to its size; one step at least, so that the loop ends.
        size = max(11, min(size - 1, int(size * (width - 2 * pad) / longest)))
    texts = [_trimmed(line, fonts[line], width - 2 * pad) for line in lines]
    step = max(sum(font.getmetrics()) for font in fonts.values())
    banner = (
        min(width, 2 * pad + math.ceil(max(fonts[line].getlength(text) for line, text in zip(lines, texts)))),
        2 * (pad // 2) + step * len(lines),
    )
    if banner[1] > 0.55 * height:  # the picture shall be seen as well
        taller = Image.new("RGB", (width, height + banner[1]), _PALE)
        taller.paste(canvas, (0, banner[1]))
        canvas = taller
    behind = canvas.crop((0, 0, *banner))
    behind = Image.blend(behind, Image.new("RGB", banner, (0, 0, 0)), 0.66)
    draw = ImageDraw.Draw(behind)
    for number, (line, text) in enumerate(zip(lines, texts)):
        baseline = pad // 2 + number * step + fonts[line].getmetrics()[0]
        draw.text((pad, baseline), text, fill="white", font=fonts[line], anchor="ls")
    canvas.paste(behind, (0, 0))
    return np.array(canvas)


def draw_curves(path: PathLike, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Write three panels over the epochs: loss, top-1 accuracy with the best epoch marked, learning rate.

    Args:
        path: the picture to write; its suffix chooses the format.
        epochs: records with ``epoch``, ``learning_rate`` and, as far as known, ``train_loss``, ``train_top1``,
            ``val_loss``, ``val_top1``; shares between 0 and 1.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(13.5, 4.4), dpi=110, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    loss, top1, rate = figure.subplots(1, 3)
    numbers = [int(record["epoch"]) for record in epochs]
    marker = {"marker": "o", "markersize": 6 if len(numbers) == 1 else 3.5} if len(numbers) <= 40 else {}
    for axes, key, factor in ((loss, "loss", 1), (top1, "top1", 100)):
        for part, colour, style in (("train", _TRAIN, "--"), ("val", _VAL, "-")):
            values = _column(epochs, f"{part}_{key}") * factor
            if np.isfinite(values).any():
                axes.plot(numbers, values, color=colour, linestyle=style, linewidth=1.8, label=part, **marker)
    best = _column(epochs, "val_top1") * 100
    if np.isfinite(best).any():
        # Of equal ones, the epoch whose weights were kept.
        kept = [i for i, record in enumerate(epochs) if record.get("best")]
        index = kept[-1] if kept else int(np.nanargmax(best))
        top1.plot(
            numbers[index],
            best[index],
            linestyle="none",
            marker="*",
            markersize=15,
            color=_VAL,
            markeredgecolor="white",
            zorder=5,
            clip_on=False,
            label=f"best val: {best[index]:.2f} % (epoch {numbers[index]})",
        )
    rates = _column(epochs, "learning_rate")
    rate.plot(numbers, rates, color=_RATE, linewidth=1.8, drawstyle="steps-mid", label="learning rate", **marker)
    if np.nanmax(rates, initial=0) > 0:
        rate.set_ylim(0, 1.08 * float(np.nanmax(rates)))
    # Numbers in full: an offset such as 1e-5 would stand apart, above the panel.
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    for axes, name in ((loss, "Loss"), (top1, "Top-1 accuracy (%)"), (rate, "Learning rate")):
        axes.set_title(name, fontsize=12)
        axes.set_xlabel("epoch")
        axes.grid(True, color="#d9dce0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(numbers) == 1:
            axes.set_xlim(numbers[0] - 1, numbers[0] + 1)
            axes.set_xticks(numbers)
        elif numbers:
            # Half an epoch at most: there is no epoch 0 to put a tick at.
            space = min(0.5, 0.04 * (numbers[-1] - numbers[0]))
            axes.set_xlim(numbers[0] - space, numbers[-1] + space)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if axes.get_legend_handles_labels()[0]:
            # Below the panel, where no curve can run through it.
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)


def row_shares(matrix: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Counts to shares of their row: float64, same shape; NaN in rows without any picture."""
    counts = np.asarray(matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def draw_confusion(path: PathLike, matrix: Sequence[Sequence[int]] | np.ndarray, labels: Sequence[str]) -> None:
    """Write a confusion matrix: rows are true classes, columns predicted ones, colours shares of the row.

    Args:
        path: the picture to write; its suffix chooses the format.
        matrix: counts, shape (classes, classes).
        labels: class names; all are written up to about 200 classes, beyond that every second, third, ...
    """
    from matplotlib import colors
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import PercentFormatter

    counts = np.asarray(matrix, dtype=np.int64)
    shares = row_shares(counts)
    classes = len(counts)
    written = classes <= 30
    side = min(max(3.2, classes * (0.5 if written else 0.085)), 17.0)  # inches
    cell = side * 72 / classes  # points
    every = math.ceil(5.5 / cell) if cell < 5.5 else 1  # smaller letters could not be read
    size = min(10.0, 0.8 * cell * every)
    # The panel fills the figure; names, titles and the scale stand outside it, and saving makes room for them.
    figure = Figure(figsize=(side, side), dpi=140 if written else 170)
    axes = figure.add_axes((0, 0, 1, 1))
    blues = colors.LinearSegmentedColormap.from_list("shares", ["#ffffff", "#9ecae1", "#3182bd", "#08306b"])
    colour_map = blues.with_extremes(bad="#e3e3e3")  # a class without pictures
    # A pixel of five per cent would be lost among hundreds of classes: there small shares are drawn darker.
    norm = colors.Normalize(0, 1) if written else colors.PowerNorm(0.5, 0, 1)
    drawn = axes.imshow(np.ma.masked_invalid(shares), cmap=colour_map, norm=norm, interpolation="nearest")
    font = FontProperties(fname=str(best_font_file("".join(labels) + "…")), size=size)
    names = [_shortened(printable(label), 32) for label in labels]
    ticks = list(range(0, classes, every))
    longest = max((_columns_wide(name) for name in names), default=0)
    axes.set_yticks(ticks)
    axes.set_xticks(ticks)
    tilt: dict[str, Any] = {}
    if longest * size * 0.62 > cell * every * 0.9:
        slanted = classes <= 30
        tilt = {"rotation": 45 if slanted else 90, "ha": "right" if slanted else "center", "rotation_mode": "anchor"}
        if not slanted:
            tilt = {"rotation": 90}
    # A class may be called "$5 and $10"; that is no formula.
    axes.set_yticklabels([names[tick] for tick in ticks], fontproperties=font, parse_math=False)
    axes.set_xticklabels([names[tick] for tick in ticks], fontproperties=font, parse_math=False, **tilt)
    axes.tick_params(length=2, pad=2)
    if written:
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
                # Zeros step back behind the numbers that matter.
                color="white" if shares[row, column] > 0.55 else ("#1b1f23" if count else "#b4b9bf"),
            )
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#e1e4e8", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    heading = 11 if side < 8 else 16
    total = int(counts.sum())
    if total:
        right = int(np.trace(counts))
        axes.set_title(f"{right} of {total} right ({right / total:.1%})", fontsize=heading, pad=10)
    axes.set_xlabel("predicted class", fontsize=heading, labelpad=8)
    axes.set_ylabel("true class", fontsize=heading, labelpad=8)
    scale = figure.add_axes((1 + 0.2 / side, 0, (0.14 if side < 8 else 0.25) / side, 1))
    bar = figure.colorbar(drawn, cax=scale, format=PercentFormatter(1, decimals=0))
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1] if written else [0, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.tick_params(labelsize=heading - 2)
    bar.set_label("share of the true class", fontsize=heading - 1)
    bar.outline.set_visible(False)
    save_figure(figure, path, bbox_inches="tight", pad_inches=0.2)


def save_figure(figure: Figure, path: PathLike, **options: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with atomic_file(path) as temporary, warnings.catch_warnings():
        # fonts.missing_glyph_hint tells users about missing characters, once and with advice.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure.savefig(temporary, facecolor="white", **options)


def _column(records: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """float64, shape (records,); NaN where a record has no such number, which matplotlib leaves out."""
    values = [record.get(key) for record in records]
    column = np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    return np.where(np.isfinite(column), column, np.nan)


def _fonts(lines: Sequence[str], size: int) -> dict[str, FreeTypeFont]:
    """A font for each line: one for all where one has every character."""
    everything = "".join(lines) + "…"
    if font_file(everything) is not None:
        return dict.fromkeys(lines, find_font(everything, size))
    return {line: find_font(line + "…", size) for line in lines}


def _trimmed(text: str, font: FreeTypeFont, width: float) -> str:
    """``text`` shortened with an ellipsis to ``width`` pixels; a percentage at its end is kept."""
    if font.getlength(text) <= width:
        return text
    head, _, last = text.rpartition(" ")
    if not (head and last.endswith("%") and font.getlength(f"……{last}") <= width):
        head, last = text, ""
    ending = f"… {last}" if last else "…"
    low, high = 0, len(head)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(head[:middle].rstrip() + ending) <= width:
            low = middle
        else:
            high = middle - 1
    return head[:low].rstrip() + ending


def _letterboxed(image: np.ndarray, side: int) -> Image.Image:
    """The whole picture in a square, scaled up or down, pale bars beside it."""
    picture = Image.fromarray(image)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (side, side), _PALE)
    tile.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile


def _wide_enough(picture: Image.Image) -> Image.Image:
    """The picture, scaled up and at need padded until it is wide enough for a label."""
    if picture.width >= _LABELLED_WIDTH:
        return picture.copy()
    # A narrow tower is padded rather than blown up to thousands of pixels of height.
    scale = max(1.0, min(_LABELLED_WIDTH / picture.width, 4 * _LABELLED_WIDTH / picture.height))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (max(_LABELLED_WIDTH, size[0]), size[1]), _PALE)
    canvas.paste(picture.resize(size, Image.Resampling.BICUBIC), (0, 0))
    return canvas


def _columns_wide(text: str) -> int:
    """Width in Latin letters; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _shortened(text: str, limit: int) -> str:
    """``text`` cut in its middle to ``limit`` Latin letters: names often differ only at an end."""
    if _columns_wide(text) <= limit:
        return text
    head, tail = len(text), 0
    while _columns_wide(text[:head]) > limit // 2:
        head -= 1
    while _columns_wide(text[-tail - 1 :]) < limit - limit // 2:
        tail += 1
    return f"{text[:head].rstrip()}…{text[len(text) - tail :].lstrip()}"
