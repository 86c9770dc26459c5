"""The page of ``pplc serve`` in a real browser: answers, corrections, keyboard, phone, Chinese, no console message."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

from helpers.images import random_image, write_image
from helpers.service import serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs pplc[browser]")
pytest.importorskip("fastapi_offline", reason="needs pplc[serve]")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<img src=x onerror=alert(1)>&'\".jpg"

if BROWSER is None:
    pytest.skip("no browser: expected chromium on PATH", allow_module_level=True)


@pytest.fixture(scope="module")
def started():
    with playwright.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(started):
    running = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    yield running
    running.close()


@pytest.fixture(scope="module")
def service(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, str(trained.run), "--collect", "kept") as running:
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    names = [HOSTILE if os.name != "nt" else "a.jpg", *(f"图 {number}.jpg" for number in range(6))]
    for number, name in enumerate(names):
        write_image(folder / name, random_image(8000 + number))
    return [str(folder / name) for name in names]


def open_page(browser, service, **options):
    """A page whose messages and requests are collected; none may go elsewhere."""
    context = browser.new_context(**{"locale": "en-US", **options})
    page = context.new_page()
    page.messages, page.elsewhere = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("dialog", lambda dialog: (page.messages.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: page.elsewhere.append(request.url)
            if not request.url.startswith((service.url, "blob:", "data:")) else None)  # fmt: skip
    page.goto(service.url)
    page.locator("#model option").wait_for(state="attached")
    return context, page


@pytest.fixture
def page(browser, service):
    context, page = open_page(browser, service)
    yield page
    assert page.messages == [] and page.elsewhere == []
    context.close()


def answered(page, count: int) -> None:
    playwright.expect(page.locator("#grid .score:not(:empty)")).to_have_count(count, timeout=30_000)


def kept(service) -> dict[str, str]:
    file = service.log.parent / "kept" / "list.csv"
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {row["path"]: row["label"] for row in csv.DictReader(lines)}


def test_drop_a_picture_read_the_answer_and_correct_it(page, service, pictures):
    transfer = page.evaluate_handle(
        """async ([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            return transfer;
        }""",
        [Path(pictures[0]).name, list(Path(pictures[0]).read_bytes())],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    playwright.expect(page.locator("#bars li")).to_have_count(2, timeout=30_000)
    assert page.locator("#detail-title").inner_text() == Path(pictures[0]).name  # as text, not as HTML
    shares = [float(text.removesuffix(" %")) for text in page.locator("#bars span:last-child").all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.11)
    before = kept(service)
    page.locator("#labels button", has_text="猫 cat").click()
    playwright.expect(page.locator("#kept")).to_contain_text("猫 cat")
    new = {name: label for name, label in kept(service).items() if name not in before}
    assert list(new.values()) == ["猫 cat"]
    (name,) = new
    assert (service.log.parent / "kept" / name).read_bytes() == Path(pictures[0]).read_bytes()
    page.fill("#new", "<script>alert(2)</script>")
    page.click("#correct [type=submit]")
    playwright.expect(page.locator("#kept")).to_contain_text("<script>alert(2)</script>")
    assert kept(service)[name] == "<script>alert(2)</script>"
    playwright.expect(page.locator("#grid .label")).to_have_text("<script>alert(2)</script>")


def test_the_grid_filters_sorts_and_is_saved(page, pictures, tmp_path):
    page.set_input_files("#files", pictures)
    answered(page, len(pictures))
    names = page.locator("#grid .file")
    assert names.all_inner_texts() == [Path(path).name for path in pictures]
    page.select_option("#sort", "down")
    scores = [float(text.removesuffix(" %")) for text in page.locator("#grid .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    counts = page.locator("#filter option").all_inner_texts()
    label = page.locator("#filter option").nth(1).get_attribute("value")
    page.select_option("#filter", label)
    assert f"{label} ({names.count()})" in counts
    assert set(page.locator("#grid .label").all_inner_texts()) == {label}
    page.select_option("#filter", "")
    with page.expect_download() as download:
        page.click("#csv")
    file = tmp_path / "saved.csv"
    download.value.save_as(file)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert sorted(row["name"] for row in rows) == sorted(Path(path).name for path in pictures)
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    page.click("#clear")
    assert page.locator("#grid li").count() == 0


def test_the_keyboard_is_enough(page, service, pictures):
    page.set_input_files("#files", pictures[1:4])
    answered(page, 3)
    page.locator("#grid button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#detail-title")).to_have_text(Path(pictures[2]).name)
    page.keyboard.press("2")
    second = page.locator("#labels button").nth(1)
    playwright.expect(second).to_have_attribute("aria-pressed", "true")
    assert second.inner_text().removeprefix("2 ") in kept(service).values()
    page.keyboard.press("ArrowRight")
    playwright.expect(page.locator("#detail-title")).to_have_text(Path(pictures[3]).name)
    page.keyboard.press("n")
    page.keyboard.type("a new one")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#kept")).to_contain_text("a new one, a new class")
    page.locator("#close").focus()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#detail")).to_be_hidden()
    assert page.evaluate("document.activeElement.closest('#grid') !== null")


def test_heat_map_and_unreadable_picture(browser, service, pictures, tmp_path):
    context, page = open_page(browser, service)
    page.set_input_files("#files", pictures[1])
    page.locator("#heat").click()
    playwright.expect(page.locator("#heat:not([disabled])")).to_have_attribute("aria-pressed", "true", timeout=60_000)
    heat = page.locator("#big").get_attribute("src")
    page.locator("#heat").click()
    assert page.locator("#big").get_attribute("src") != heat
    assert page.messages == []
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(pictures[1]).read_bytes()[:300])
    page.set_input_files("#files", str(broken))
    playwright.expect(page.locator("#answer")).to_contain_text("broken", timeout=30_000)
    assert all("422" in message for message in page.messages)  # the browser's own line about the status
    context.close()


def test_phone_width_and_chinese(browser, service, pictures):
    context, page = open_page(browser, service, viewport={"width": 390, "height": 844}, locale="zh-CN",
                              color_scheme="dark")  # fmt: skip
    page.set_input_files("#files", pictures[0])
    playwright.expect(page.locator("#bars li")).to_have_count(2, timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.locator("#choose").inner_text() == "图片"
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 390  # a finger's size
    page.click("#language")
    assert page.locator("#choose").inner_text() == "Pictures"
    assert page.messages == [] and page.elsewhere == []
    context.close()


def test_texts_are_the_same_in_both_languages(page):
    texts = page.evaluate("TEXTS")
    assert texts["en"].keys() == texts["zh"].keys()
    for key, _english in texts["en"].items():
        fields = [sorted(part.partition("}")[0] for part in texts[name][key].split("{")[1:]) for name in ("en", "zh")]
        assert fields[0] == fields[1], key


def test_a_camera_that_is_missing_is_said(page):
    page.click("#camera")
    playwright.expect(page.locator("#camera-text")).to_contain_text("No camera can be used")
    page.keyboard.press("Escape")


def test_the_camera_takes_a_picture(started, service):
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    running = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *fake])
    _, page = open_page(running, service)
    page.click("#camera")
    playwright.expect(page.locator("#shoot")).to_be_visible()
    page.wait_for_timeout(500)  # the first frame
    page.click("#shoot")
    playwright.expect(page.locator("#bars li")).to_have_count(2, timeout=30_000)
    assert page.messages == []
    running.close()


def test_the_page_asks_for_the_token(browser, trained, tmp_path, pictures):
    with serving(tmp_path, str(trained.run), "--token", "a b") as running:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(running.url)
        page.fill("#token", "a b")
        page.keyboard.press("Enter")
        page.locator("#model option").wait_for(state="attached")
        page.set_input_files("#files", pictures[1])
        playwright.expect(page.locator("#bars li")).to_have_count(2, timeout=30_000)
        assert page.locator("#keeps").inner_text().startswith("This server keeps nothing.")
        other = context.new_page()
        other.goto(f"{running.url}/#token=a%20b")
        other.locator("#model option").wait_for(state="attached")
        assert "token" not in other.url  # it would stay in the history
        context.close()
