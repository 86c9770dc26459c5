"""The HTML report of a run: self-contained, escaped, in two languages, and shown by a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from helpers.commands import Pplc


class Page(HTMLParser):
    """Collects the tags, the sources of images and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
            self.alts.append(dict(attrs)["alt"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """A run after one epoch, which makes mistakes, in a folder named like HTML; its report in both languages."""
    folder = tmp_path_factory.mktemp("report")
    pplc = Pplc(folder)
    args = [*trained.args[:-1], "a <b> & 图", "-o", "train.epochs=1", "-o", "train.learning_rate=0.001"]
    pplc("train", *args)
    pplc("check", str(trained.data), "--output", "the check")
    pplc("report", "a <b> & 图", "--check", "the check")
    pplc("report", "a <b> & 图", "--lang", "zh", "--output", "zh.html")
    return folder, folder / "a <b> & 图" / "report.html", folder / "zh.html"


def test_everything_is_inside_and_every_image_decodes(pages):
    for file in pages[1:]:
        text = file.read_text("utf-8")
        page = Page(text)
        assert len(text.encode()) < 5_000_000
        assert "script" not in page.tags and "link" not in page.tags and not re.search(r"https?://", text)
        assert len(page.sources) >= 3 and all(page.alts)
        for source in page.sources:
            assert source.startswith("data:image/")
            with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
                image.load()
                assert min(image.size) >= 32


def test_names_are_escaped_and_figures_agree_with_the_evaluation(pages):
    folder, english, _ = pages
    page = Page(english.read_text("utf-8"))
    assert "a <b> & 图: a classifier of 2 classes" in page.text

    Pplc(folder)("eval", "--run", "a <b> & 图")
    metrics = json.loads((folder / "a <b> & 图" / "eval_test" / "metrics.json").read_text("utf-8"))
    assert f"{metrics['top1']:.1%}" in page.text and "猫 cat" in page.text
    assert f"{metrics['calibration']['calibration_error']:.3f}" in page.text
    assert "is not exported yet" in page.text and "What the check of the data found" in page.text


def test_the_chinese_report_is_chinese(pages):
    text = pages[2].read_text("utf-8")
    assert 'lang="zh-CN"' in text
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert len(headings) >= 8 and all(re.search(r"[\u4e00-\u9fff]", heading) for heading in headings)


def test_only_reports_are_replaced(pages):
    folder = pages[0]
    pplc = Pplc(folder)
    (folder / "mine.html").write_text("mine", encoding="utf-8")
    refused = pplc("report", "a <b> & 图", "--output", "mine.html", check=False)
    assert refused.returncode == 1 and refused.stderr.strip() == (
        "Error: mine.html exists and is no report; replace it with --force"
    )
    missing = pplc("report", "a <b> & 图", "--check", "nowhere", check=False)
    assert "nowhere: holds no check" in missing.stderr
    assert "no trained run" in pplc("report", "nowhere", check=False).stderr


def test_a_browser_shows_it_without_errors(pages, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium is installed")
    for file, width in zip(pages[1:], (390, 1200)):
        picture = tmp_path / f"{width}.png"
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000", f"--screenshot={picture}",
             file.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert picture.is_file(), done.stderr[-2000:]
        assert "CONSOLE" not in done.stderr
        with Image.open(picture) as image:
            assert image.size[0] >= width and len(set(image.convert("L").resize((60, 100)).getdata())) > 10
