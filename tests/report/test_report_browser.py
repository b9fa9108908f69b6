"""The report as a browser shows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.report import test_ensemble_page as ensembles
from tests.report.test_audit_page import WEAK, made
from tests.report.test_report import UGLY, looking, make_run, rendered
from thirtytwo.report import write_audit, write_ensemble

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make check installs it")

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
    """Of an ordinary run, and of runs with Grad-CAM, many classes, ugly names, without an end; of audits, ensembles."""
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
    runs["looking"] = make_run(folder / "looking", temperature=1.7)
    html = rendered(runs["looking"], looking(runs["looking"], blank=True)).html
    (runs["looking"].path / "report.html").write_text(html, encoding="utf-8")
    ugly = made(classes=UGLY, size=(12, 20), paths=True)
    audits = {"audit": made(issues=50), "ugly audit": ugly, "weak audit": WEAK}
    for name, found in audits.items():
        (folder / name).mkdir()
        write_audit(folder / name, found)
    together = {
        "ensemble": ensembles.made(),
        "ugly ensemble": ensembles.made([f"runs/{name}" for name in UGLY] + ["a/model" * 20]),
    }
    for name, chosen in together.items():
        (folder / name).mkdir()
        write_ensemble(folder / name, chosen, [ensembles.student()])
    pages = {name: run.path / "report.html" for name, run in runs.items()}
    pages |= {name: folder / name / "audit.html" for name in audits}
    return pages | {name: folder / name / "ensemble.html" for name in together}


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


@pytest.mark.parametrize("name", [
    "ordinary", "many", "ugly", "unfinished", "looking", "audit", "ugly audit", "weak audit", "ensemble",
    "ugly ensemble",
])  # fmt: skip
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
    assert len(sizes) >= (0 if name == "unfinished" or "ensemble" in name else 20)
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [reports[name].as_uri()]


@pytest.mark.parametrize("width", [PHONE, 1100])
def test_a_picture_and_its_maps_stand_side_by_side(browser: Any, reports: dict[str, Path], width: int) -> None:
    page = visit(browser, reports["looking"], width=width).page
    rows = page.evaluate(
        """() => [...document.querySelectorAll(".looks li")].map(row => [...row.querySelectorAll("img")].map(image => {
            const place = image.getBoundingClientRect();
            return [place.top, place.left, place.width];
        }))"""
    )
    assert [len(row) for row in rows] == [2] * 6 + [3] * 6
    for row in rows:
        tops, lefts, widths = zip(*row, strict=True)
        assert max(tops) - min(tops) < 1
        assert all(right - left >= wide for left, right, wide in zip(lefts, lefts[1:], widths, strict=False))
        assert max(widths) - min(widths) < 1
        assert min(widths) > 90


@pytest.mark.parametrize("name", ["ordinary", "audit", "ensemble"])
def test_light_and_dark_are_both_readable(browser: Any, reports: dict[str, Path], name: str) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        seen = visit(browser, reports[name], scheme=scheme)
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
        "When pictures get worse",
        "What it learned from",
        "How it was made, and how to reproduce it",
    ]
    assert seen.page.locator("table.sortable tbody tr").count() == 10
    assert seen.page.locator("button:visible, select:visible").count() == 0


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


def test_a_click_on_the_matrix_shows_those_images(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["ordinary"])
    page = seen.page
    cell = page.locator("table.matrix td.miss").first
    number = int(cell.inner_text())
    names = cell.get_attribute("title").partition(":")[0].split(" → ")
    cell.locator("button").click()
    tiles = page.locator("#gallery .tiles li")
    assert tiles.count() == number
    assert tiles.locator("b").all_inner_texts() == [names[0]] * number
    assert all(names[1] in text for text in tiles.locator(".said").all_inner_texts())
    assert page.locator("#gallery output").inner_text().startswith(f"{number} of ")
    playwright.expect(page.locator("#gallery")).to_be_in_viewport()
    assert page.evaluate("document.activeElement.id") == "gallery"
    assert seen.complaints == []


def test_a_click_on_a_large_matrix_does_so_too(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["many"]).page
    page.locator("#failures svg .miss").first.dispatch_event("click")
    assert 0 < page.locator("#gallery .tiles li").count() < 5


def test_the_gallery_filters_and_grows(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["ordinary"])
    page = seen.page
    tiles, told = page.locator("#gallery .tiles li"), page.locator("#gallery output")
    shown, everything = map(int, told.inner_text().split(" of "))
    assert shown == everything > tiles.count() == 48
    while page.locator("#gallery .more").is_visible():
        page.locator("#gallery .more").click()
    assert tiles.count() == everything
    of_class = []
    for name in page.locator("#gallery select").first.locator("option").all_inner_texts()[1:]:
        page.locator("#gallery select").first.select_option(label=name)
        of_class.append(int(told.inner_text().split(" of ")[0]))
        assert set(tiles.locator("b").all_inner_texts()) == {name}
    assert sum(of_class) == everything
    page.locator("#gallery .all").click()
    assert told.inner_text() == f"{everything} of {everything}"
    assert seen.complaints == []


def test_no_choice_that_the_gallery_offers_is_empty(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["ordinary"]).page
    told = page.locator("#gallery output")
    true, said = page.locator("#gallery select").all()
    for name in true.locator("option").all_inner_texts():
        true.select_option(label=name)
        offered = said.locator("option").all_inner_texts()
        assert len(offered) > 1
        assert name == "any" or name not in offered  # nothing is a mistake for itself
        for other in offered:
            said.select_option(label=other)
            assert int(told.inner_text().split(" of ")[0]) > 0
        said.select_option(label="any")  # or else only some of the true classes would be left


def test_doubtful_labels_are_filtered_by_class_and_suggestion(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["audit"])
    page = seen.page
    shown, told = page.locator("#labels .answers li:visible"), page.locator("#which output")
    assert told.inner_text() == f"{shown.count()} of 100 on this page"
    given, suggested = page.locator("#which select").all()
    names = given.locator("option").all_inner_texts()[1:]
    numbers = []
    for name in names:
        given.select_option(label=name)
        assert set(shown.locator(".true").all_inner_texts()) == {name}
        assert len(suggested.locator("option").all_inner_texts()) > 1
        numbers.append(shown.count())
    assert sum(numbers) == 100
    page.locator("#which button").click()
    assert shown.count() == 100
    for name in suggested.locator("option").all_inner_texts()[1:]:
        suggested.select_option(label=name)
        assert set(shown.locator(".said").all_inner_texts()) == {f"{name}?"}
        assert 0 < shown.count() < 100
    page.locator("#which button").click()
    row = page.locator("#kinds tbody tr").first
    row.locator("button").click()
    assert told.inner_text() == f"{row.locator('button').inner_text()} of 100 on this page"
    assert set(shown.locator(".true").all_inner_texts()) == {row.locator("th").inner_text()}
    assert seen.complaints == []


def test_a_table_is_saved_without_what_was_struck_out(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["audit"])
    page, found = seen.page, made(issues=50)
    bar = page.locator("#struck")
    assert bar.is_hidden()
    for item in (page.locator("#labels li").nth(3), page.locator("#duplicates li").nth(1)):
        item.locator("button").click()
    for table, section, place in (("label_issues.csv", "labels", 3), ("duplicates.csv", "duplicates", 1)):
        item = page.locator(f"#{section} li").nth(place)
        line = int(item.get_attribute("data-line"))
        pictures = [image.get_attribute("alt").lower().replace(" image ", ",") for image in item.locator("img").all()]
        with page.expect_download() as download:
            bar.locator(f"[data-table='{table}'] button").click()
        assert download.value.suggested_filename == table
        lines = found.tables[table].splitlines(keepends=True)
        assert lines[line + 1].decode().startswith(",".join(pictures) + ",")  # of what was struck out
        assert Path(download.value.path()).read_bytes() == b"".join(lines[: line + 1] + lines[line + 2 :])
    page.reload()
    assert page.locator(".struck").count() == 2  # what somebody has judged is kept
    assert bar.locator("output").all_inner_texts() == ["1 of 100: label is right", "1 of 9: not the same"]
    for button in page.locator("li.struck button").all()[::-1]:
        button.click()
    assert bar.is_hidden()
    assert page.locator(".struck").count() == 0
    assert seen.complaints == []


def test_the_matrix_shows_counts_or_rates(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["ordinary"]).page
    cells = page.locator("table.matrix tbody tr").first.locator("td")
    counts = cells.all_inner_texts()
    page.get_by_role("button", name="Show rates").click()
    rates = [float(text) for text in cells.all_inner_texts() if text != "·"]
    assert sum(rates) == pytest.approx(100, abs=0.6)
    page.get_by_role("button", name="Show counts").click()
    assert cells.all_inner_texts() == counts


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


@pytest.mark.parametrize("width", [PHONE, 1100])
def test_charts_have_text_of_one_size(browser: Any, reports: dict[str, Path], width: int) -> None:
    page = visit(browser, reports["ordinary"], width=width).page
    curves, corruptions = page.evaluate(
        """() => [".curves", ".corruptions"].map(place => {
            const text = document.querySelector(`${place} .tick`);
            return parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
        })"""
    )
    assert curves > 9.99
    assert corruptions == pytest.approx(curves, rel=0.02)


@pytest.mark.parametrize("width", [PHONE, 1100])
def test_the_labels_above_the_matrix_stand_on_one_line(browser: Any, reports: dict[str, Path], width: int) -> None:
    page = visit(browser, reports["ordinary"], width=width).page
    feet = page.evaluate(
        """() => [...document.querySelectorAll(".matrix thead th span")].map(
            label => label.getBoundingClientRect().bottom)"""
    )
    assert len(feet) == 10
    assert max(feet) - min(feet) < 1


def test_on_a_phone_nothing_sticks_to_tables(browser: Any, reports: dict[str, Path]) -> None:
    page = visit(browser, reports["ordinary"], width=PHONE).page
    below, beside = page.evaluate(
        """() => {
            const place = words => document.querySelector(`#failures ${words}`).getBoundingClientRect();
            return [
                place(".aside").top - place("[aria-label='Class by class']").bottom,
                place("[aria-label='Confusion matrix']").right - place(".matrix").right,
            ];
        }"""
    )
    assert below > 10
    assert beside > 5


@pytest.mark.parametrize("width", [PHONE, 1100])
def test_captions_in_the_gallery_are_equally_high(browser: Any, reports: dict[str, Path], width: int) -> None:
    page = visit(browser, reports["ordinary"], width=width).page
    heights = page.evaluate(
        """() => [...document.querySelectorAll("#gallery .tiles li")].map(
            tile => tile.lastElementChild.getBoundingClientRect().bottom - tile.getBoundingClientRect().top)"""
    )
    assert len(heights) == 48
    assert max(heights) - min(heights) < 1


def test_the_command_is_copied_by_a_click(browser: Any, reports: dict[str, Path]) -> None:
    seen = visit(browser, reports["ordinary"])
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen.page.locator("#provenance .copy button").click()
    playwright.expect(seen.page.locator("#provenance .copy button")).to_have_text("Copied")
    assert (
        seen.page.evaluate("navigator.clipboard.readText()")
        == "OMP_NUM_THREADS=2 thirtytwo train recipe.toml --data cifar10 --seed 7 --device cpu"
    )
