"""The page in a real browser, by keyboard alone. Runs where playwright and a chromium are at hand."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gcnet.models.detector import Detector
from gcnet.serve.app import make_app
from gcnet.serve.served import Served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]


@pytest.fixture(scope="module")
def address(detector: Detector) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(Served.of(detector)), log_config=None, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page at the width of a telephone, which asks no other host and has no error."""
    context = browser.new_context(viewport={"width": 400, "height": 800}, accept_downloads=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if is_elsewhere(request.url, address) else 0)
    page.on("filechooser", lambda _: None)  # from here on the browser hands choosers over
    page.goto(address)
    yield page
    context.close()
    assert wrong == []


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", f"blob:{address.rstrip('/')}"))


def said(page: Any, words: str) -> None:
    """Waits until the live region says it."""
    page.locator("[role=status]", has_text=words).wait_for(timeout=30_000)


def send(page: Any, path: Path) -> None:
    page.set_input_files("#file", str(path))
    page.wait_for_selector("#result:not([hidden])", timeout=30_000)
    said(page, "above")


def focused(page: Any) -> dict[str, str]:
    return page.evaluate(
        """() => { const on = document.activeElement, label = on.labels?.[0] || on;
        return { id: on.id, value: on.value || "", text: label.textContent.trim(),
          outlined: getComputedStyle(on.classList.contains("unseen") || on.closest(".chip")
            ? on.parentElement : on).outlineStyle }; }"""
    )


def tab_to(page: Any, wanted: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Presses Tab until the focus is where it is wanted; all that has it on the way is seen to have it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        on = focused(page)
        assert on["text"], on
        assert on["outlined"] != "none", on
        if wanted(on):
            return on
    raise AssertionError("Tab does not lead there")


def test_by_keyboard_alone(page: Any, picture: Callable[..., bytes], tmp_path: Path) -> None:
    file = tmp_path / "noise.png"
    file.write_bytes(picture())
    page.keyboard.press("Tab")
    assert focused(page)["text"] == "Choose a picture"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(file))
    said(page, "above")
    many = page.locator("#objects li").count()

    tab_to(page, lambda on: on["id"] == "threshold")
    page.keyboard.press("Home")
    said(page, "above 0.05")
    all_of_them = page.locator("#objects li").count()
    assert all_of_them > many > 0

    before = page.evaluate("document.querySelector('#canvas').toDataURL()")
    tab_to(page, lambda on: on["text"] == "Masks")
    page.keyboard.press("Space")
    page.wait_for_timeout(100)
    assert page.evaluate("document.querySelector('#canvas').toDataURL()") != before

    tab_to(page, lambda on: on["text"].startswith("a"))
    page.keyboard.press("Space")
    assert page.locator("#objects li").count() < all_of_them
    tab_to(page, lambda on: on["id"] == "none")
    page.keyboard.press("Enter")
    said(page, "switched off")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator("#objects li").count() == all_of_them

    tab_to(page, lambda on: on["text"] == "Off")
    page.keyboard.press("ArrowRight")
    said(page, "block c3")

    tab_to(page, lambda on: on["id"] == "save-json")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    saved = json.loads(Path(download.value.path()).read_text())
    assert len(saved["detections"]) == all_of_them
    assert (saved["width"], saved["height"], saved["score_threshold"]) == (120, 80, 0.05)
    page.keyboard.press("Shift+Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")

    tab_to(page, lambda on: "0." in on["text"])
    page.keyboard.press("Enter")
    assert page.locator("#objects [aria-pressed=true]").count() == 1


def test_what_is_no_picture_is_said(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    page.set_input_files("#file", str(tmp_path / "a.png"))
    page.wait_for_selector("#problem:not([hidden])")
    assert "not an image" in page.inner_text("[role=alert]")


def test_a_format_that_the_browser_does_not_know(
    page: Any, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(picture(format="TIFF"))
    send(page, tmp_path / "a.tif")
    assert "120 x 80" in page.inner_text("figcaption")


def test_nothing_scrolls_sideways_and_everything_has_a_name(
    page: Any, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / f"{'long-name-' * 12}.png").write_bytes(picture(600, 60))
    send(page, next(tmp_path.glob("*.png")))
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    for control in page.locator("input:visible, button:visible").all():
        name = control.evaluate("one => (one.labels?.[0] || one).textContent.trim()")
        assert name, control.evaluate("one => one.outerHTML")


def test_a_dropped_picture_and_a_pasted_one(page: Any, picture: Callable[..., bytes]) -> None:
    for kind, key in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """([kind, key, bytes]) => {
              const carried = new DataTransfer();
              carried.items.add(new File([Uint8Array.from(bytes)], kind + ".png", { type: "image/png" }));
              const event = new Event(kind, { bubbles: true, cancelable: true });
              Object.defineProperty(event, key, { value: carried });
              document.body.dispatchEvent(event);
            }""",
            [kind, key, list(picture())],
        )
        said(page, f"in {kind}.png above")
