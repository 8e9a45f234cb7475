"""The report of a run opened from disk in a real browser: no request leaves it, and it fits every screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from cytolib.run.report import write_report
from tests.browser.lab import BROWSER_FLAGS, find_browser
from tests.report_runs import Run, make_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        message = "no Chromium on PATH: install it (.ci/run shows how)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(tmp_path_factory.mktemp("report"))
    write_report(made.folder, tuple(made.parameters), made.parameters, made.chain)
    return made


def addresses(run: Run) -> list[str]:
    """The report and every notebook's page."""
    pages: list[Path] = [run.folder / "index.html", *(run.folder / name / f"{name}.html" for name in run.parameters)]
    return [page.as_uri() for page in pages]


@pytest.mark.parametrize("javascript", [True, False])
def test_no_request_leaves_the_page_and_every_picture_is_seen(run: Run, browser: Browser, javascript: bool) -> None:
    context = browser.new_context(java_script_enabled=javascript)
    for address in addresses(run):
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(address)
        pictures = page.locator("img").all()
        assert pictures
        for picture in pictures:
            picture.scroll_into_view_if_needed()
            # the natural width of a picture that was refused or is missing is 0
            page.wait_for_function(
                "n => n.complete && n.naturalWidth > 0", arg=picture.element_handle(), timeout=10_000
            )
        assert asked and all(url.startswith(("file:", "data:")) for url in asked), asked
        assert page.title() != "owned" and page.url == address, "a text of the run acted as a script or a redirection"
        page.close()
    context.close()


def test_a_script_in_an_output_would_run_without_the_policy(run: Run, browser: Browser, tmp_path: Path) -> None:
    """The test above can fail: the same page without its policy is renamed by the hostile output."""
    page = browser.new_page()
    text = (
        (run.folder / "00_data" / "00_data.html").read_text().replace("default-src 'none'; img-src data:", "img-src *")
    )
    (tmp_path / "open.html").write_text(text)
    page.goto((tmp_path / "open.html").as_uri())
    assert page.title() == "owned"
    page.close()


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(run: Run, browser: Browser, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    grounds = []
    for address in addresses(run):
        page = context.new_page()
        page.goto(address)
        page.evaluate("() => document.querySelectorAll('details').forEach(node => { node.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    context.close()
    assert set(grounds) == {"rgb(245, 245, 248)" if scheme == "light" else "rgb(17, 21, 28)"}


def test_the_keyboard_reaches_the_report(run: Run, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(addresses(run)[0])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#overview"
    folded = page.locator("details:not([open])").first.element_handle()
    folded.query_selector("summary").focus()  # type: ignore[union-attr]
    page.keyboard.press("Enter")
    assert folded.evaluate("node => node.open")
    page.locator('figcaption a[href$=".png"]').first.click()
    assert page.url.endswith(".png")
    page.close()


def test_a_print_shows_what_is_folded_away(run: Run, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(addresses(run)[0])
    folded = page.locator("details:not([open]) td").first
    assert not folded.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert folded.is_visible() and not page.locator("nav.side").is_visible()
    page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots an inch
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 34, 48)", (
        "paper is white in the dark, too"
    )
    page.close()
