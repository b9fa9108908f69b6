"""The report as a browser shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.report.test_report import UGLY, make_run, rendered

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install thirtytwo[dev]")

pytestmark = pytest.mark.browser

PHONE = 390


@dataclass
class Visit:
    """A page that was opened, and what happened on the way."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of an ordinary run, one with many classes, one with ugly names, and one that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    many = [f"a class with the number {number}" for number in range(100)]
    location = {"location": "/a/very/long/path" * 20, "notice": "Unlike-any-other" * 20, "spec": "x" * 300}
    runs = {
        "ordinary": make_run(folder / "ordinary"),
        "many": make_run(folder / "many", classes=many, images=1000, size=(8, 8)),
        "ugly": make_run(folder / "ugly", classes=UGLY, images=60, size=(12, 20), data=location),
        "unfinished": make_run(folder / "unfinished", ended=False),
    }
    for run in runs.values():
        (run.path / "report.html").write_text(rendered(run).html, encoding="utf-8")
    return {name: run.path / "report.html" for name, run in runs.items()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Debian's chromium: apt install chromium")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", *quiet])
        yield opened
        opened.close()


def visit(
    browser: Any, report: Path, *, width: int = 1100, scheme: Literal["light", "dark"] = "light", scripts: bool = True
) -> Visit:
    """Open a report and open all that is folded in it."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
    )
    seen = Visit(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.goto(report.as_uri(), wait_until="load")
    if scripts:
        seen.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    return seen


@pytest.mark.parametrize("name", ["ordinary", "many", "ugly", "unfinished"])
def test_a_phone_shows_it_all_without_sideways_scrolling_and_without_a_network(
    browser: Any, reports: dict[str, Path], name: str
) -> None:
    seen = visit(browser, reports[name], width=PHONE)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE
    # Nothing is cut off at the edge either, but what scrolls by itself.
    outside = seen.page.evaluate(
        """width => [...document.querySelectorAll("body *")]
            .filter(part => !part.closest(".scroll, pre, svg") && part.getBoundingClientRect().right > width + 0.5)
            .map(part => part.outerHTML.slice(0, 100))""",
        PHONE,
    )
    assert outside == []
    sizes = seen.page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert all(complete and width > 0 for complete, width in sizes)
    assert len(sizes) > 50 or name == "unfinished"
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [reports[name].as_uri()]


def test_light_and_dark_are_both_readable(browser: Any, reports: dict[str, Path]) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        seen = visit(browser, reports["ordinary"], scheme=scheme)
        lightness[scheme] = seen.page.evaluate(
            """() => ["backgroundColor", "color"].map(name => {
                const [red, green, blue] = getComputedStyle(document.body)[name].match(/[\\d.]+/g).map(Number);
                return (red + green + blue) / 3;
            })"""
        )
        assert seen.complaints == []
    assert lightness["light"][0] > 230 > 60 > lightness["light"][1]
    assert lightness["dark"][0] < 60 < 200 < lightness["dark"][1]


def test_the_page_is_complete_without_scripts(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["ordinary"], scripts=False)
    assert seen.page.locator("h2").all_inner_texts() == [
        "How it learned",
        "25 test images, drawn at random",
        "Where it fails",
        "Its most confident mistakes",
        "Does it know when it may be wrong?",
        "What it learned from",
        "How it was made, and how to make it again",
    ]
    assert seen.page.locator("table.sortable tbody tr").count() == 10
    assert seen.page.locator("button").count() == 0


def test_a_click_or_a_key_on_a_column_sorts_the_classes_by_it(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["ordinary"]).page
    recall = page.locator("table.sortable thead th").nth(2)

    def column() -> list[float]:
        return [
            float(text.rstrip("%")) for text in page.locator("table.sortable tbody td:nth-child(3)").all_inner_texts()
        ]

    before = column()
    recall.locator("button").click()
    assert column() == sorted(before)
    assert recall.get_attribute("aria-sort") == "ascending"
    recall.locator("button").press("Enter")
    assert column() == sorted(before, reverse=True)
    assert recall.get_attribute("aria-sort") == "descending"
    assert page.locator("th[aria-sort]").count() == 1


def test_the_labels_of_a_hundred_classes_can_be_read_on_a_phone(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["many"], width=PHONE).page
    pixels = page.evaluate(
        """() => [...document.querySelectorAll("svg .small")].map(text => {
            const matrix = text.getScreenCTM();
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b);
        })"""
    )
    assert len(pixels) == 200
    assert min(pixels) > 9.99


def test_the_command_is_copied_by_a_click(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["ordinary"])
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator("#provenance .copy button").click()
    playwright.expect(seen.page.locator("#provenance .copy button")).to_have_text("Copied")
    assert (
        seen.page.evaluate("navigator.clipboard.readText()")
        == "OMP_NUM_THREADS=2 thirtytwo train recipe.toml --data cifar10 --seed 7 --device cpu"
    )
