"""Fonts and plots: the pixels that are drawn."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import use_language
from pplc_cli.plots import fonts
from pplc_cli.plots.annotate import annotate
from pplc_cli.plots.confusion import draw_confusion, row_shares
from pplc_cli.plots.contact_sheet import contact_sheet
from pplc_cli.plots.curves import draw_curves
from pplc_cli.plots.figure import chart, chart_text
from pplc_cli.plots.text import display_width, shortened, shortened_names, trimmed

LONG = "a class name that is far too long for any tile of this sheet 98.7%"


@pytest.fixture
def cjk() -> Path:
    file = fonts.font_file("猫狗熊貓")
    if file is None:
        pytest.skip("no font with Chinese glyphs on this machine (pip install mplfonts)")
    return file


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPLC_FONT", raising=False)
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    monkeypatch.setattr(fonts, "_packaged_font", lambda: None)


def solid(height: int, width: int, colour: tuple[int, int, int] = (40, 160, 80)) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def confusion(classes: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(0.3, (classes, classes)) + 9 * np.eye(classes, dtype=np.int64)


def epochs(count: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "learning_rate": 0.01 / epoch,
            "train_loss": 2 / epoch,
            "train_top1": 1 - 0.5 / epoch,
            "val_loss": 2.2 / epoch,
            "val_top1": 0.9 - 0.5 / epoch,
        }
        for epoch in range(1, count + 1)
    ]


# Fonts


def test_latin_text_is_drawn_with_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPLC_FONT", raising=False)
    assert fonts.best_font_file("Kätzchen 98.7% …").name == "DejaVuSans.ttf"
    assert fonts.missing_glyph_hint("panda, тигр") is None


def test_chinese_glyphs_are_no_boxes(cjk: Path) -> None:
    assert fonts.missing_glyph_hint("猫狗") is None
    drawn = [bytes(fonts.find_font(text, 40).getmask(text)) for text in "猫狗"]
    assert drawn[0] != drawn[1] and all(map(any, drawn))


def test_without_a_font_the_user_is_told_what_is_missing(only_dejavu: None) -> None:
    assert fonts.font_file("cat 猫") is None
    assert fonts.best_font_file("cat 猫").name == "DejaVuSans.ttf"
    assert fonts.find_font("cat 猫", 12).size == 12
    hint = fonts.missing_glyph_hint("cat 猫猫")
    assert hint == (
        "no font on this machine can draw '猫'; install one with: pip install 'pplc[cjk]' "
        "(or set PPLC_FONT=/path/to/font)"
    )


def test_chosen_font_is_taken_where_it_has_the_glyphs(
    cjk: Path, only_dejavu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPLC_FONT", str(cjk))
    assert fonts.font_file("猫") == fonts.font_file("cat") == cjk
    # A rare character neither has must not take the Chinese ones with it.
    assert fonts.best_font_file("猫狗\U000130e0") == cjk


def test_broken_and_missing_fonts_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("broken.ttf", b"no font at all"), ("empty.otf", b""), ("missing.ttf", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        monkeypatch.setenv("PPLC_FONT", str(tmp_path / name))
        assert fonts.best_font_file("cat").name == "DejaVuSans.ttf"


def test_names_from_file_systems_become_printable() -> None:
    assert fonts.printable(unicodedata.normalize("NFD", "Kätzchen")) == "Kätzchen"
    assert fonts.printable("a\nb\tc\udcff") == "a b c?"
    assert fonts.missing_glyph_hint("a\nb") is None


# Contact sheets


def test_sheet_has_the_size_of_its_tiles(tmp_path: Path) -> None:
    tiles = [(solid(30, 50), ["cat", "0.9"]) for _ in range(7)]
    contact_sheet(tmp_path / "sheet.png", tiles, columns=3, side=100)
    height, width, _ = read(tmp_path / "sheet.png").shape
    assert width == 3 * 100 + 4 * 8
    assert 3 * 100 < height < 3 * 170
    contact_sheet(tmp_path / "one.png", tiles[:1], columns=3, side=100)
    assert read(tmp_path / "one.png").shape[1] == 100 + 2 * 8


def test_sheet_letterboxes_without_distortion(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", [(solid(20, 40), [])], side=100)
    sheet = read(tmp_path / "sheet.png")
    painted = (sheet == (40, 160, 80)).all(axis=2)
    assert painted.sum(axis=0).max() == 50 and painted.sum(axis=1).max() == 100
    assert (sheet[0] == 255).all() and (sheet[:, 0] == 255).all()


def test_captions_stay_inside_their_tile(tmp_path: Path) -> None:
    tiles = [(solid(9, 9), [LONG]), (solid(9, 9), [])]
    contact_sheet(tmp_path / "sheet.png", tiles, side=120)
    ink = np.any(read(tmp_path / "sheet.png")[10 + 120 :] < 200, axis=(0, 2))
    assert ink[10:130].any()
    assert not ink[131:].any()


def test_trimming_keeps_the_percentage() -> None:
    font = fonts.find_font(LONG, 13)
    short = trimmed(LONG, font, 150)
    assert short.startswith("a class") and "…" in short and short.endswith(" 98.7%")
    assert font.getlength(short) <= 150
    assert trimmed("cat", font, 150) == "cat"
    assert trimmed("x" * 90, font, 150).strip("x") == "…"


def test_chinese_captions_differ(tmp_path: Path, cjk: Path) -> None:
    for name in "猫狗":
        contact_sheet(tmp_path / f"{name}.png", [(solid(9, 9), [name])], title="错误")
    assert (read(tmp_path / "猫.png") != read(tmp_path / "狗.png")).any()


@pytest.mark.parametrize("tiles", [[], [(solid(1, 1), ["猫", "\udcff"]), (solid(1, 900), [])]])
def test_odd_sheets(tmp_path: Path, tiles: list) -> None:
    contact_sheet(tmp_path / "sheet.jpg", tiles, title="odd")
    assert read(tmp_path / "sheet.jpg").size
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.jpg"]


def test_sheet_that_cannot_be_written_is_an_error_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PplcError, match="cannot write"):
        contact_sheet(tmp_path / "file" / "sheet.png", [])


# Labelled images


@pytest.mark.parametrize("shape", [(240, 320), (1500, 2000)])
def test_banner_leaves_the_rest_of_the_image_alone(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    labelled = annotate(image, ["panda 98.7%", "tiger 1.3%"])
    assert labelled.dtype == np.uint8 and labelled.shape == image.shape
    assert (image == before).all()
    changed = (labelled != image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] == columns[0] == 0
    assert rows[-1] < 0.25 * shape[0] and columns[-1] < 0.6 * shape[1]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255)])
def test_label_stands_out_on_black_and_white(colour: tuple[int, int, int]) -> None:
    labelled = annotate(solid(300, 300, colour), ["panda"])[:18, :60].astype(int)
    assert labelled.max() - labelled.min() > 150


def test_letters_grow_with_the_image() -> None:
    def banner_height(side: int) -> int:
        labelled = annotate(solid(side, side), ["panda"])
        return int((labelled[:, 0] != (40, 160, 80)).any(axis=1).sum())

    assert 12 <= banner_height(200) < banner_height(1000) < banner_height(3000)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (20, 300), (2000, 10), (32, 32), (96, 95)])
def test_tiny_and_extreme_images_get_room_for_a_label(shape: tuple[int, int]) -> None:
    labelled = annotate(solid(*shape, (250, 20, 20)), ["panda 98.7%", LONG])
    assert labelled.dtype == np.uint8
    assert labelled.shape[1] >= 96 and labelled.shape[0] >= max(shape[0], 24)
    assert labelled.size < 3 * 200 * 2000
    assert (labelled == (250, 20, 20)).all(axis=2).any(), "the image itself is still seen"
    assert (labelled.min(axis=2) > 200).any(), "and so is the text"


def test_no_lines_change_nothing() -> None:
    assert (annotate(solid(5, 5), []) == solid(5, 5)).all()


def test_chinese_labels_differ(cjk: Path) -> None:
    assert (annotate(solid(99, 99), ["猫"]) != annotate(solid(99, 99), ["狗"])).any()


# Curves


@pytest.mark.parametrize("count", [1, 2, 12])
def test_curves(tmp_path: Path, count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(tmp_path / "curves.png", epochs(count))
    picture = read(tmp_path / "curves.png")
    for name, colour, panels in (("train", (230, 159, 0), 2), ("val", (0, 114, 178), 2), ("rate", (0, 158, 115), 1)):
        painted = (picture == colour).all(axis=2)
        # Above the legends, in thirds: one panel each.
        thirds = np.array_split(painted[: int(0.8 * len(painted))], 3, axis=1)
        assert sum(third.any() for third in thirds) == panels, name


def test_curves_without_validation_and_with_gaps(tmp_path: Path) -> None:
    records: list[dict] = [{"epoch": 1, "learning_rate": 0.1, "train_loss": float("nan")}, *epochs(3)[1:]]
    records[1].update(val_loss=None, val_top1=None, train_loss=float("inf"))
    del records[2]["val_top1"], records[2]["val_loss"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curves(tmp_path / "curves.png", records)
        draw_curves(tmp_path / "none.png", [])
    assert not (read(tmp_path / "curves.png") == (0, 114, 178)).all(axis=2).any()


# Confusion matrices


@pytest.fixture
def chinese() -> Iterator[None]:
    use_language("zh")
    yield
    use_language("en")


def test_charts_speak_the_users_language(tmp_path: Path, cjk: Path, chinese: None) -> None:
    draw_curves(tmp_path / "zh.png", epochs(12))
    use_language("en")
    draw_curves(tmp_path / "en.png", epochs(12))
    assert not np.array_equal(read(tmp_path / "zh.png"), read(tmp_path / "en.png"))


def test_chinese_charts_have_all_glyphs(tmp_path: Path, cjk: Path, chinese: None) -> None:
    @chart
    def draw(path: Path) -> None:
        figure = Figure()
        figure.text(0.1, 0.5, chart_text("learning rate"))
        assert chart_text("learning rate") == "学习率"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Matplotlib warns of characters that no font has
            figure.savefig(path)

    draw(tmp_path / "chart.png")
    assert (read(tmp_path / "chart.png") < 128).any()


def test_charts_are_english_where_no_font_is_chinese(only_dejavu: None, chinese: None) -> None:
    assert chart_text("best: {top1:.2f} % (epoch {number})", top1=90, number=3) == "best: 90.00 % (epoch 3)"
    assert chart_text("learning rate") == "learning rate"


def test_row_shares() -> None:
    shares = row_shares([[3, 1, 0], [0, 0, 0], [0, 5, 5]])
    assert shares[[0, 2]].tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5]]
    assert np.isnan(shares[1]).all()


def test_confusion_colours_follow_shares_and_not_counts(tmp_path: Path) -> None:
    # The same shares: only the written counts may differ.
    draw_confusion(tmp_path / "few.png", [[4, 0], [1, 3]], ["a", "b"])
    draw_confusion(tmp_path / "many.png", [[8, 0], [2, 6]], ["a", "b"])
    few, many = read(tmp_path / "few.png"), read(tmp_path / "many.png")
    below = slice(150, None)  # the title counts, too
    assert few.shape == many.shape
    assert 0 < (few[below] != many[below]).any(axis=2).mean() < 0.01
    # A row and its column are not mixed up: the dark corner is the upper left one.
    dark = np.argwhere((few == (8, 48, 107)).all(axis=2) & (np.arange(few.shape[1]) < few.shape[1] * 0.8))
    assert dark.mean(axis=0)[0] < few.shape[0] / 2


@pytest.mark.parametrize("classes", [2, 12, 64])
def test_confusion_of_many_sizes(tmp_path: Path, classes: int) -> None:
    labels = [f"{LONG} $x_{index}^" for index in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(tmp_path / "confusion.png", confusion(classes), labels)
    picture = read(tmp_path / "confusion.png")
    assert max(picture.shape) < 4000
    assert (picture[:8] == 255).all() and (picture[:, :8] == 255).all(), "nothing is cut off"


def test_confusion_without_any_image(tmp_path: Path) -> None:
    draw_confusion(tmp_path / "confusion.png", np.zeros((2, 2), dtype=int), ["a", "b"])
    assert (read(tmp_path / "confusion.png") == 0xE3).all(axis=2).any()


def test_chinese_class_names_differ(tmp_path: Path, cjk: Path) -> None:
    for name in "猫狗":
        draw_confusion(tmp_path / f"{name}.png", [[1, 0], [0, 1]], [name, "panda"])
    assert (read(tmp_path / "猫.png") != read(tmp_path / "狗.png")).any()


def test_missing_glyphs_do_not_warn(tmp_path: Path, only_dejavu: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(tmp_path / "confusion.png", [[1, 0], [0, 1]], ["猫", "狗"])


def test_long_names_are_cut_in_the_middle() -> None:
    short = shortened("Ailuropoda melanoleuca, the giant panda 17", 20)
    assert short.startswith("Ailuro") and short.endswith("17") and "…" in short and len(short) <= 21
    assert shortened("猫" * 30, 20) == "猫" * 5 + "…" + "猫" * 4
    assert shortened("cat", 20) == "cat"


def test_shortened_names_still_differ() -> None:
    middle = [f"a long name that all share, number {n:02d}, and a long end that all share" for n in range(30)]
    nested = [f"{'the same ' * 9}{a} {'and again ' * 9}{b}{' for ever' * 9}" for a in "xy" for b in "pq"]
    chinese = [f"{'大熊猫' * 9}{n}{'东北虎' * 9}" for n in "一二三"]
    for names in (middle, nested, chinese):
        short = shortened_names(names, 32)
        assert len(set(short)) == len(names)
        assert max(map(display_width, short)) <= 32
    assert shortened_names(["cat", "dog"], 32) == ["cat", "dog"]
