"""The report of a run whose folder is made here, by the same code that stores a real one."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import thirtytwo
from tests.test_explain import Looks, classifier
from thirtytwo import environment
from thirtytwo import recipe as recipes
from thirtytwo.data.images import Images
from thirtytwo.errors import ModelError, RunError
from thirtytwo.evaluate import Scored, _store
from thirtytwo.metrics import expected_calibration_error, wilson
from thirtytwo.report import charts, figures, looks, page, stored, wording, write
from thirtytwo.run import Row, Run, read_tensors, write_tensors
from thirtytwo.settings import CustomModel

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
UGLY = ("<script>alert(1)</script>", '"quoted" & $x^2$', "a name that goes on for far longer than any class should")
EVALUATED = {"random_test_images.png", "examples.png", "confusion.png", "reliability.png", "mistakes.png"}
CURVES = {"curves.svg", "curves.png"}


def make_run(
    folder: Path,
    *,
    classes: Sequence[str] = TEN,
    images: int = 300,
    epochs: int = 4,
    size: tuple[int, int] = (32, 32),
    validation: bool = True,
    mistakes: bool = True,
    ended: bool = True,
    evaluated: bool = True,
    data: dict[str, Any] | None = None,
    network: str = "",
    temperature: float = 1.0,
    unknown_below: float = 0.0,
    corrupted: bool = True,
    overrides: Sequence[str] = (),
) -> Run:
    """A run folder with the files of a real one, and made-up numbers."""
    unselected = [] if validation else ["validation=0", "early_stopping.patience=0"]
    recipe = recipes.load("classic", [*unselected, *overrides]).for_device("cpu")
    if network:
        recipe = recipe.model_copy(update={"model": CustomModel(module=network)})
    facts = {
        **environment.describe(torch.device("cpu")),
        "seed": 7,
        "kernels": "torch",
        "threads": 2,
        "data": {
            "spec": "cifar10",
            "name": "cifar10",
            "location": "/somewhere/cifar-10-batches-bin",
            "fingerprint": "0123456789abcdef" * 4,
            "images": 50_000,
            "classes": list(classes),
            "size": list(size),
            "warnings": [],
            "notice": None,
            **(data or {}),
        },
    }
    run = Run.create(folder, recipe, facts)
    rows: list[Row] = [
        {
            "epoch": epoch,
            "learning_rate": 0.004 / epoch,
            "train_loss": 2.0 / epoch,
            "train_accuracy": 1 - 0.6 / epoch,
            # The last but one is the best.
            "validation_loss": 1.5 / epoch + (0.9 if epoch == epochs > 1 else 0) if looked else None,
            "validation_accuracy": 1 - 0.5 / epoch if looked else None,
            "images_per_second": 3000.0,
            "seconds": 16.0 * epoch,
        }
        for epoch in range(1, epochs + 1)
        for looked in [recipe.validates(epoch - 1)]
    ]
    run.metrics = rows
    if not ended:
        return run
    result: dict[str, Any] = {
        "recipe": "classic",
        "seed": 7,
        "data": "cifar10",
        "images": 50_000,
        "epochs": epochs,
        "kept_epoch": epochs - 1 if validation and epochs > 1 else epochs,
        "train_seconds": 243.2,
        "cold_seconds": 261.0,
        "flops": 4.12e14,
        "parameters": 551_466,
        "peak_memory_bytes": 812 * 2**20,
        "calibration": {"temperature": temperature, "unknown_below": unknown_below},
    }
    if evaluated:
        test = _scored(classes, images, size, mistakes)
        generator = np.random.default_rng(1)
        examples = torch.from_numpy(generator.integers(1, 256, (len(classes), 10, *size, 3), dtype=np.uint8))
        counts = torch.full((len(classes),), 10)
        _store(run, [test], {"examples": examples, "examples.counts": counts}, 7, result["calibration"])
        result |= {"test_opening": 3, "test": test.summary()}
        if corrupted:
            kinds = {"noise": [0.8, 0.7, 0.6, 0.5, 0.4], "blur": [0.81, 0.71, 0.61, 0.51, 0.41]}
            result["corrupted"] = {"images": 100, "accuracy": 0.86, "kinds": kinds, "mean": 0.605}
        if validation:
            result["validation"] = {"images": 5000, "accuracy": 0.8931, "loss": 0.3312}
    run.result = result
    return run


def _scored(classes: Sequence[str], images: int, size: tuple[int, int], mistakes: bool) -> Scored:
    generator = np.random.default_rng(0)
    labels: NDArray[np.int64] = np.arange(images, dtype=np.int64) % len(classes)
    pixels = generator.integers(0, 256, (images, *size, 3), dtype=np.uint8)
    scores = generator.normal(size=(images, len(classes)))
    scores[np.arange(images), labels] += 2.5 if mistakes else 40.0
    probabilities = torch.from_numpy(scores).softmax(1).float()
    test = Images(pixels, labels, tuple(classes), "cifar10")
    return Scored("test", test, torch.arange(images) + 1000, probabilities, opening=3, seconds=0.1)


class Page(HTMLParser):
    """A page's elements with their attributes, and its text, element by element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("style", "script")).split())

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def section(self, name: str) -> Page:
        found = re.search(rf'<section id="{name}">.*?</section>', self.html, re.DOTALL)
        assert found, f"no section {name}"
        return Page(found.group())


def table(page: Page, label: str) -> list[list[str]]:
    """The cells of the table in the region that is labelled so, row by row."""
    found = re.search(rf'aria-label="{label}[^"]*"><table.*?<tbody>(.*?)</tbody>', page.html, re.DOTALL)
    assert found, f"no table {label}"
    rows = re.findall(r"<tr\b.*?</tr>", found[1], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def read(run: Run) -> Page:
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


def rendered(run: Run, shown: looks.Looks | None = None) -> Page:
    """The page alone, without the figures: much faster; with what a network shows of itself, where that is given."""
    contents, bins, found = _contents(run)
    return Page(page.render(contents, bins, shown or found))


def looking(run: Run, *, blank: bool) -> looks.Looks:
    """What a network might show of itself; `blank`: in its mistakes, nothing speaks for the true class."""
    judged = stored.read(run).judged
    assert judged
    right = [answer for answer in judged.random if answer.right][: looks.SHOWN]
    hits = [looks.Look(answer, looks.Overlay(answer.pixels, is_blank=False), None) for answer in right]
    mistakes = [
        looks.Look(answer, looks.Overlay(answer.pixels, is_blank=False), looks.Overlay(answer.pixels, is_blank=blank))
        for answer in judged.mistakes[: looks.SHOWN]
    ]
    return looks.Looks(hits, mistakes, filters=[])


def _contents(run: Run) -> Any:
    from thirtytwo.metrics import reliability

    contents = stored.read(run)
    judged = contents.judged
    return contents, reliability(judged.probabilities, judged.labels) if judged else None, looks.at(contents)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An ordinary run, with its report."""
    made = make_run(tmp_path_factory.mktemp("runs") / "ordinary")
    assert write(made) == made.path / "report.html"
    return made


@pytest.fixture(scope="module")
def html(run: Run) -> Page:
    return read(run)


# What is written -----------------------------------------------------------------------------------------------------


def test_every_figure_is_a_file_that_opens(run: Run) -> None:
    figures = run.path / "figures"
    assert {file.name for file in figures.iterdir()} == EVALUATED | CURVES
    for file in figures.glob("*.png"):
        with Image.open(file) as image:
            image.load()
            assert min(image.size) > 200
    assert ElementTree.fromstring((figures / "curves.svg").read_bytes()).tag.endswith("svg")


def test_writing_again_gives_the_same_bytes_and_changes_nothing_else(run: Run) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    parameters = dict(matplotlib.rcParams)
    write(run)
    assert {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()} == before
    assert dict(matplotlib.rcParams) == parameters


def test_ten_thousand_test_images_make_less_than_five_megabytes(tmp_path: Path) -> None:
    # Noise: no image is larger in a file that is lossless.
    html = rendered(make_run(tmp_path / "run", images=10_000)).html
    assert 3_000_000 < len(html.encode()) < 5_000_000


# The page by itself --------------------------------------------------------------------------------------------------


def check_it_stands_alone(page: Page) -> None:
    """That a page refers to nothing outside itself, and to nothing that is not in it."""
    identifiers = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:"), tag
        target = attributes.get("href", "data:,")
        assert target == "data:," or target.removeprefix("#") in identifiers, tag
        assert not {"srcset", "action", "formaction", "poster", "data", "xlink:href"} & set(attributes), tag
    assert not re.search(r"https?://|url\((?!data:image/)|@import|\bfetch\(", page.html)


def test_the_page_refers_to_nothing_outside_itself(html: Page) -> None:
    check_it_stands_alone(html)


def test_the_end_of_a_page_leads_back_to_its_beginning(html: Page) -> None:
    links = [attributes["href"] for attributes in html.of("a")]
    assert links[-1] == "#top"
    assert html.of("body") == [{"id": "top"}]


def test_the_browser_is_told_to_load_nothing(html: Page) -> None:
    policies = [meta["content"] for meta in html.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    ]


def test_a_person_who_does_not_see_the_page_is_told_what_is_there(html: Page) -> None:
    assert html.of("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in html.of("img"))
    assert all(drawing["aria-label"] and drawing["role"] == "img" for drawing in html.of("svg"))
    assert all(head["scope"] in ("row", "col") for head in html.of("th"))
    levels = [int(tag[1]) for tag, _ in html.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_class_names_are_text_and_never_markup(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"images": 60, "size": (12, 20), "mistakes": False}
    odd = make_run(tmp_path / "odd", classes=UGLY, data={"name": "<b>set</b>", "notice": "<i>"}, **settings)
    write(odd)  # with the figures: matplotlib would read dollars as formulas
    found = read(odd)
    plain = rendered(make_run(tmp_path / "plain", classes=("a", "b", "c"), data={"notice": "i"}, **settings))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain.elements]
    for name in UGLY:
        assert name in found.text
    assert "<b>set</b>" in found.text


# What the page says --------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_result(run: Run, html: Page) -> None:
    test = run.result["test"]
    right = round(test["accuracy"] * test["images"])
    for words in (
        f"{test['accuracy']:.1%}",
        f"Of 300 images that it was not trained on, the network named {right} correctly.",
        f"{test['loss']:.3f}",
        f"{test['top5']:.1%}",
        f"{test['macro_f1']:.3f}",
        f"The expected calibration error is {test['ece']:.1%}",
        "4 min 03 s",
        "551,466",
        "412 TFLOP",
        "4 of 16",
        "3rd opening of this test set, by this user on this machine",
        "The weights of epoch 3 were kept",
        "Both losses are plain cross-entropy and can be compared.",
        "10 training images of each class, drawn at random from those that the network was trained on.",
        "0.500, with 89.3% of 5,000 images right",
    ):
        assert words in html.text


def test_the_accuracy_comes_with_its_interval(run: Run, html: Page) -> None:
    test = run.result["test"]
    low, high = wilson(round(test["accuracy"] * 300), 300)
    assert f"95% Wilson interval {low:.1%} to {high:.1%} 3rd opening of this test set, by" in html.text


def test_the_confusion_matrix_holds_every_test_image(run: Run, html: Page) -> None:
    table = re.search(r'<table class="matrix">.*?</table>', html.html, re.DOTALL)
    assert table
    rows = re.findall(r"<tr>.*?</tr>", table.group().split("<tbody>")[1], re.DOTALL)
    counts = [[int(cell.replace("·", "0")) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", row)] for row in rows]
    assert counts == run.result["test"]["confusion"]


def test_the_most_frequent_confusion_is_told_first(run: Run) -> None:
    judged = stored.read(run).judged
    assert judged
    pairs = judged.most_confused(8)
    off_diagonal = judged.counts - np.diag(judged.counts.diagonal())
    assert pairs[0].images == off_diagonal.max()
    assert [pair.images for pair in pairs] == sorted((pair.images for pair in pairs), reverse=True)


def test_the_gallery_has_every_mistake_most_confident_first(run: Run, html: Page) -> None:
    judged = stored.read(run).judged
    assert judged
    facts = json.loads(re.search(r'id="gallery-facts">(.*?)</script>', html.html, re.DOTALL)[1])  # type: ignore[index]
    assert facts["classes"] == list(TEN)
    assert len(facts["rows"]) == judged.wrong
    for row, answer in zip(facts["rows"], judged.mistakes, strict=True):
        index, true, said, sure = row
        assert (index, TEN[true], TEN[said]) == (answer.index, answer.true, answer.predicted)
        assert sure == pytest.approx(100 * answer.probability, abs=0.05)
    sheet = re.search(r"background-image: url\(data:image/webp;base64,([^)]*)\)", html.html)
    assert sheet
    with Image.open(io.BytesIO(base64.b64decode(sheet[1]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    for place, answer in enumerate(judged.mistakes):
        row, column = divmod(place, facts["columns"])
        assert np.array_equal(pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32], answer.pixels)


@pytest.mark.parametrize("size", [(32, 32), (96, 96)])
def test_a_page_of_many_classes_stays_small(tmp_path: Path, size: tuple[int, int]) -> None:
    many = [f"class {number}" for number in range(100 if size == (32, 32) else 10)]
    page = rendered(make_run(tmp_path / "run", classes=many, images=1000, size=size))
    assert len(page.html.encode()) < 5_000_000
    shown = len(page.section("examples").of("img"))
    assert len(many) <= shown < 10 * len(many)
    assert f"{shown // len(many)} training image" in page.section("examples").text


def test_a_class_without_test_images_is_judged_by_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=["a", "b", "c"], images=2, mistakes=False)
    rows = table(rendered(run), "Class by class")
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert [row[1:4] for row in rows][2] == ["–", "–", "–"]
    assert "–" not in rows[0]


def test_a_temperature_is_shown_with_what_it_changed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", temperature=1.7, unknown_below=0.5)
    judged = stored.read(run).judged
    assert judged
    before = judged.uncalibrated
    assert torch.equal(before.argmax(1), judged.probabilities.argmax(1))
    assert torch.allclose((before.log() / 1.7).softmax(1), judged.probabilities, atol=1e-5)
    text = rendered(run).section("calibration").text
    ece = expected_calibration_error(before, judged.labels)
    assert f"Before temperature scaling: calibration error {ece:.1%}" in text
    assert "scores divided by 1.70" in text
    answered = judged.probabilities.amax(1) >= 0.5
    right = (judged.probabilities.argmax(1) == judged.labels)[answered]
    assert f"it would answer {answered.float().mean():.1%} of the test images" in text
    assert f"be right on {right.float().mean():.1%} of those" in text
    assert "Before temperature scaling" not in rendered(make_run(tmp_path / "other")).text


def test_bars_of_few_images_are_pale_and_every_bar_tells_its_interval() -> None:
    number = torch.tensor([0, charts.FEW_IMAGES - 1, charts.FEW_IMAGES, 500])
    right = torch.tensor([0.0, 1 / 3, 0.5, 0.9], dtype=torch.float64)
    confidence = torch.tensor([0.0, 0.4, 0.6, 0.9], dtype=torch.float64)
    drawing = ElementTree.fromstring(charts.reliability(number, confidence, right))
    bars = [(bar.findtext("title", ""), [part.get("class") for part in bar.iter("rect")]) for bar in drawing.iter("g")]
    assert [styles for _, styles in bars] == [["bar few", "bar"], ["bar", "bar"], ["bar", "bar"]]
    for (words, _), images, share in zip(bars, number[1:].tolist(), right[1:].tolist(), strict=True):
        low, high = wilson(share * images, images)
        assert words.startswith(f"{images} images: mean confidence ")
        assert words.endswith(f"{share:.1%} correct (95% Wilson interval {low:.1%} to {high:.1%})")


def test_losses_say_on_which_side_of_the_temperature_they_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", temperature=1.7)
    found, loss = rendered(run), run.result["test"]["loss"]
    curves = found.section("curves")
    drawn = [drawing["aria-label"] for drawing in curves.of("svg")]
    assert drawn[0].startswith("Loss, in nats, before temperature scaling, over 4 epochs: training from ")
    assert not any("temperature" in words for words in drawn[1:])
    assert "The losses in this section are before temperature scaling" in curves.text
    after = f"After it, the validation loss is 0.331 and the test loss is {loss:.3f}; these two can be compared."
    assert after in curves.text
    for name, value, images in (("Test", loss, "300"), ("Validation", 0.3312, "5,000")):
        assert f"{name} loss {value:.3f} mean of −log p(true class) on {images} images, in nats" in found.text
    legends = [panel.get_legend() for panel in figures._curves(stored.read(run)).axes[:2]]
    assert [legend and legend.get_title().get_text() for legend in legends] == ["before temperature scaling", ""]

    alone = rendered(make_run(tmp_path / "alone", temperature=1.7, validation=False)).section("curves").text
    assert f"After it, the test loss is {loss:.3f}." in alone
    assert "compared" not in alone
    assert "temperature" not in rendered(make_run(tmp_path / "plain")).section("curves").html


UNKNOWN = ("test", "test_opening", "corrupted")
"""What a result does not say before the test set was opened."""


def test_a_run_of_a_study_shows_its_loss_after_the_temperature_too(tmp_path: Path) -> None:
    def rendered_with(temperature: float) -> Page:
        run = make_run(tmp_path / f"run {temperature}", temperature=temperature)
        run.result = {key: value for key, value in run.result.items() if key not in UNKNOWN}
        return rendered(run)

    assert "temperature" not in rendered_with(1.0).section("curves").html
    earlier = make_run(tmp_path / "earlier")  # by a version that said nothing of it, and fitted one
    earlier.result = {key: earlier.result[key] for key in earlier.result if key not in ("calibration", *UNKNOWN)}
    assert "before temperature scaling" in rendered(earlier).section("curves").text
    found = rendered_with(1.7)
    assert "before temperature scaling" in found.section("curves").of("svg")[0]["aria-label"]
    assert "After it, the validation loss is 0.331." in found.section("curves").text
    assert "Validation loss 0.331" in found.text


def test_accuracy_under_corruption_is_shown(tmp_path: Path, html: Page) -> None:
    found = html.section("corruptions")
    assert "Mean accuracy over all of them: 60.5%; on the same images uncorrupted: 86.0%" in found.text
    assert [drawing["aria-label"].partition(":")[0] for drawing in found.of("svg")] == ["noise", "blur"]
    assert len(found.of("img")) == 6
    assert found.texts.count(("text", "strength")) == 2  # below the axis of each chart
    assert 'id="corruptions"' not in rendered(make_run(tmp_path / "run", corrupted=False)).html


@pytest.mark.parametrize("last", [0.0, 0.41, 0.9, 1.0])
def test_the_last_accuracy_stands_beside_its_curve_and_not_on_it(last: float) -> None:
    drawing = ElementTree.fromstring(charts.corruption("noise", 1.0, [0.8, 0.7, 0.6, 0.5, last]))
    curve = next(drawing.iter("polyline")).attrib["points"]
    points = [tuple(map(float, point.split(","))) for point in curve.split()]
    (label,) = (text.attrib for text in drawing.iter("text") if text.text == f"{last:.1%}")
    assert label["text-anchor"] == "start"
    assert float(label["x"]) > max(x for x, _ in points) + 3  # which is the radius of a dot
    assert float(label["y"]) == pytest.approx(points[-1][1], abs=6)


def test_corruptions_are_shown_on_different_pictures_that_show_them_well(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    tensors, header = read_tensors(run.predictions_path)
    pixels, well = tensors["random.pixels"], {3: 90, 8: 110}  # position -> contrast
    pixels[:] = 10  # too dark to become darker, and flat
    pixels[12] = 255
    pixels[12, :2] = 200  # too bright to become brighter
    for place, contrast in well.items():
        pixels[place, :16], pixels[place, 16:] = 128 - contrast, 128 + contrast
    write_tensors(run.predictions_path, tensors, header)
    shown = [image["alt"] for image in rendered(run).section("corruptions").of("img")]
    indices = [int(tensors["test.indices"][tensors["random.rows"][place]]) for place in (8, 3)]
    assert shown == [
        f"Test image {index}, {kind} of strength {strength}"
        for index, kind in zip(indices, ("noise", "blur"), strict=True)
        for strength in (1, 3, 5)
    ]


def test_a_real_run_shows_where_its_network_looks(tmp_path: Path) -> None:
    words = ["epochs=2", "batch_size=50", "model.stages=[[4],[8]]", "model.hidden_units=8"]
    training = thirtytwo.train(recipes.load("classic", words), "shapes:training=300,test=60", out=tmp_path / "run")
    training.finish()
    thirtytwo.evaluate_run(training.run)
    write(training.run)
    judged = stored.read(training.run).judged
    assert judged
    found = read(training.run).section("looks")
    right = min(sum(answer.right for answer in judged.random), 6)
    wrong = min(judged.wrong, 6)
    assert len(found.of("img")) == 2 * right + 3 * wrong + 4  # 4 kernels


def test_a_map_in_which_nothing_speaks_for_the_class_says_so(run: Run) -> None:
    for blank in (True, False):
        found = rendered(run, looking(run, blank=blank)).section("looks")
        assert found.text.count("nothing speaks for it") == (looks.SHOWN if blank else 0)
        assert ("no region raises its score in that layer" in found.text) is blank


def test_nothing_speaks_for_a_colour_that_an_image_lacks() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    red = black.copy()
    red[2, 2, 0] = 200
    answers = [stored.Answer(0, pixels, "red", "red", right=True, probability=0.9) for pixels in (black, red)]
    found = looks._looks(classifier(Looks()), answers)
    assert [look.predicted.is_blank for look in found] == [True, False]


def test_wrong_answers_are_marked_by_more_than_a_colour(run: Run, html: Page) -> None:
    judged = stored.read(run).judged
    assert judged
    wrong = sum(not answer.right for answer in judged.random)
    assert 0 < wrong < 25
    shown = html.section("random")
    assert len(shown.of("img")) == 25
    assert [answer.get("class") for answer in shown.of("li")].count("wrong") == wrong
    assert sum(text.startswith("✗") for _, text in shown.texts) == wrong
    assert sum(text.startswith("✓") for _, text in shown.texts) == 25 - wrong


def test_mistakes_are_shown_the_most_confident_first(html: Page) -> None:
    shown = html.section("mistakes")
    assert len(shown.of("img")) == page.MISTAKES_SHOWN
    confidence = [float(text.removesuffix("%")) for _, text in shown.texts if re.fullmatch(r"[\d.]+%", text)]
    assert len(confidence) == page.MISTAKES_SHOWN
    assert confidence == sorted(confidence, reverse=True)


def test_images_in_the_page_are_the_stored_ones_to_the_bit(run: Run, html: Page) -> None:
    tensors, _ = read_tensors(run.predictions_path)
    for section, pixels in (
        ("random", tensors["random.pixels"]),
        ("mistakes", tensors["mistakes.pixels"][: page.MISTAKES_SHOWN]),
        ("examples", tensors["examples"].flatten(0, 1)),
    ):
        images = html.section(section).of("img")
        found = [Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) for image in images]
        assert np.array_equal(np.stack([np.asarray(image) for image in found]), pixels.numpy())


def test_notice_and_warnings_of_the_data_stand_before_the_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data={"notice": "These are shapes & more.", "warnings": ["One <odd> file."]})
    text = rendered(run).text
    for words in ("These are shapes & more.", "One <odd> file."):
        assert 0 < text.index(words) < text.index("95% Wilson interval")


def test_the_command_makes_the_same_run_again(tmp_path: Path) -> None:
    spec = "my data/it's here"
    found = rendered(make_run(tmp_path / "run", images=20, data={"spec": spec}))
    command = next(text for _, text in found.texts if "thirtytwo train" in text)
    assert shlex.split(command) == [
        *("OMP_NUM_THREADS=2", "thirtytwo", "train", "recipe.toml"),
        *("--data", spec, "--seed", "7", "--device", "cpu"),
    ]
    toml = next(text for tag, text in found.texts if text.startswith("name = "))
    assert recipes.parse(toml) == recipes.load("classic").for_device("cpu")


def test_threads_are_named_only_where_they_decide_how_sums_are_rounded(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", images=20)
    run.environment = {**run.environment, "device": "cuda:1"}
    found = rendered(run)
    assert "OMP_NUM_THREADS" not in found.text
    assert "the same kind of processor, this reproduces the run, up to rounding: thirtytwo train" in found.text


def test_a_network_of_ones_own_is_made_again_in_python(tmp_path: Path) -> None:
    found = rendered(make_run(tmp_path / "run", images=20, network="mine.Net"))
    call = 'thirtytwo.train("recipe.toml", \'cifar10\', seed=7, device="cpu", network=…).finish()'
    assert f"torch.set_num_threads(2) {call}" in found.text


def test_a_run_on_arrays_is_made_again_and_resumed_in_python(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data={"spec": "arrays"}, ended=False)
    found = rendered(run)
    assert 'thirtytwo.train("recipe.toml", thirtytwo.from_arrays(…), seed=7, device="cpu").finish()' in found.text
    assert f"thirtytwo.resume({str(run.path)!r}, thirtytwo.from_arrays(…))" in found.text


# Runs of every kind --------------------------------------------------------------------------------------------------


def test_a_hundred_classes_stay_usable(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(100)]
    run = make_run(tmp_path / "run", classes=names, images=1000, size=(8, 8))
    found = rendered(run).section("failures")
    assert 'class="matrix"' not in found.html
    squares = [shape["class"] for shape in found.of("path")]
    counts: NDArray[np.int64] = np.array(run.result["test"]["confusion"])
    assert squares.count("hit") == np.count_nonzero(counts.diagonal())
    assert squares.count("miss") == np.count_nonzero(counts) - np.count_nonzero(counts.diagonal())
    drawing = next(drawing for drawing in found.of("svg") if drawing["aria-label"].startswith("Confusion matrix"))
    assert drawing["style"] == f"width: {drawing['width']}px"  # labels keep their size, whatever the screen's
    assert len(table(found, "Class by class")) == 100
    write(make_run(tmp_path / "fewer", classes=names[:26], images=52, size=(8, 8)))
    for file in (tmp_path / "fewer" / "figures").glob("*.png"):
        with Image.open(file) as image:
            assert max(image.size) < 4000


def test_every_confusion_of_many_classes_can_be_read_without_pointing_at_it(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(30)]
    found: dict[int, str] = {}
    for images in (60, 3000):
        run = make_run(tmp_path / str(images), classes=names, images=images, size=(8, 8))
        off_diagonal: NDArray[np.int64] = np.array(run.result["test"]["confusion"])
        np.fill_diagonal(off_diagonal, 0)
        section = rendered(run).section("failures")
        cells = table(section, "Confusions")
        rows = [(names.index(true), names.index(said), int(number)) for true, said, number, *_ in cells]
        assert all(off_diagonal[true, said] == number for true, said, number in rows)
        assert len(rows) == min(np.count_nonzero(off_diagonal), 300)
        assert [number for *_, number in rows] == sorted(off_diagonal.flatten().tolist(), reverse=True)[: len(rows)]
        found[images] = section.text
    assert "Every confusion in numbers" in found[60]
    assert "The 300 most frequent of" in found[3000]


def test_a_run_without_mistakes_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=("no", "yes"), images=40, mistakes=False)
    found = rendered(run)
    assert "There are none: it named each of these 40 test images correctly." in found.section("mistakes").text
    assert "Top-5" not in found.text  # it says nothing about two classes


def test_one_epoch_without_validation_is_enough(tmp_path: Path) -> None:
    found = rendered(make_run(tmp_path / "run", images=30, epochs=1, validation=False))
    assert "1 epoch, of at most 16." in found.section("curves").text
    assert "Validation" not in found.section("curves").text


def test_epochs_without_a_look_at_validation_images_leave_no_gap_in_its_curve(tmp_path: Path) -> None:
    words = ["epochs=7", "validate_every=3", "early_stopping.patience=0"]
    run = make_run(tmp_path / "run", epochs=7, evaluated=False, overrides=words)
    run.result = {**run.result, "kept_epoch": 7}
    found = rendered(run)
    lines = [line["points"].split() for line in found.of("polyline") if line["class"] == "line validation"]
    assert [len(points) for points in lines if len(points) > 2] == [3, 3]
    assert "Validation is measured every 3 epochs" in found.text
    rows = table(found, "Every epoch in numbers")
    assert [bool(row[3]) for row in rows] == [True, False, False, True, False, False, True]
    assert figures.draw(stored.read(run), None).keys() == CURVES
    run.metrics = [{**row, "validation_loss": None, "validation_accuracy": None} for row in run.metrics]
    with pytest.raises(RunError, match="epoch 1 has validation values"):
        stored.read(run)


def test_before_the_first_look_no_epoch_is_called_the_best(tmp_path: Path) -> None:
    words = ["epochs=18", "validate_every=5"]
    run = make_run(tmp_path / "run", epochs=2, ended=False, overrides=words)
    assert figures.draw(stored.read(run), None).keys() == CURVES
    found = rendered(run)
    assert "no epoch has been validated yet" in found.text
    assert "best so far" not in found.text
    assert "(kept)" not in found.text
    looked = rendered(make_run(tmp_path / "looked", epochs=4, ended=False, overrides=words))
    assert "epoch 3 best so far" in looked.text


def test_images_keep_their_proportions(tmp_path: Path) -> None:
    found = rendered(make_run(tmp_path / "run", images=30, size=(12, 20)))
    assert all((image["width"], image["height"]) == ("96", "58") for image in found.of("img"))


def test_large_images_are_reduced_in_the_page(tmp_path: Path) -> None:
    found = rendered(make_run(tmp_path / "run", classes=("a", "b"), images=20, size=(300, 200)))
    content = base64.b64decode(found.of("img")[0]["src"].partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (64, 96)


def test_a_class_with_few_images_shows_those_it_has(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=("a", "b"), images=20)
    tensors, header = read_tensors(run.predictions_path)
    tensors["examples.counts"][1] = 3
    tensors["examples"][:, 0] = 0  # black, and an image all the same
    write_tensors(run.predictions_path, tensors, header)
    found = rendered(run).section("examples")
    assert len(found.of("img")) == 10 + 3
    assert "Up to 10 training images of each class" in found.text


@pytest.mark.parametrize(("ended", "epochs"), [(True, 1), (False, 4)])
def test_an_unfinished_run_is_reported_as_far_as_it_goes(tmp_path: Path, ended: bool, epochs: int) -> None:
    run = make_run(tmp_path / "a run", ended=ended, epochs=epochs, validation=not ended, evaluated=False)
    write(run)
    found = read(run)
    assert "has not been evaluated" in found.text
    assert ("This training has not ended" in found.text) is not ended
    command = next(text for _, text in found.texts if "--resume" in text)
    assert shlex.split(command) == ["thirtytwo", "train", "--resume", str(run.path)]
    assert "test accuracy" not in found.text
    assert {file.name for file in (run.path / "figures").iterdir()} == CURVES
    assert len(found.section("curves").of("svg")) == 3
    assert "0123456789abcdef" in found.section("provenance").text


def test_what_an_unfinished_page_says_to_type_ends_the_training_of_ones_own_network(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 4 * 4, 10))

    recipe = recipes.load("classic", ["epochs=2"])
    training = thirtytwo.train(recipe, "shapes:training=100,test=20", network=network(), out=tmp_path / "run")
    next(event for event in training if isinstance(event, thirtytwo.Epoch))  # and no further
    before = rendered(training.run)
    assert "--resume" not in before.text
    code = next(text for _, text in before.texts if "thirtytwo.resume(" in text)
    exec(code.replace("…", "network()"), {"thirtytwo": thirtytwo, "network": network})
    assert "95% Wilson interval" in read(training.run).text


def test_a_very_long_training_makes_no_larger_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=20_000, evaluated=False)
    found = rendered(run)
    assert len(found.html) < 100_000
    assert "metrics.csv in the run folder" in found.text


# What is wrong with a folder -----------------------------------------------------------------------------------------


def test_a_run_without_an_epoch_says_how_to_go_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=1, ended=False)
    (run.path / "metrics.csv").unlink()
    with pytest.raises(RunError, match=r"no finished epoch.*expected.*--resume"):
        write(run)
    assert not (run.path / "report.html").exists()
    own = make_run(tmp_path / "own", epochs=0, ended=False, network="mine.Net")
    with pytest.raises(RunError, match=r"`resume\(.*own"):
        write(own)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _edit_result(run: Run, **changes: Any) -> None:
    run.result = {**run.result, "test": {**run.result["test"], **changes}}


def _edit_metrics(run: Run, **changes: Any) -> None:
    run.metrics = [{**run.metrics[0], **changes}]


def _edit_tensor(run: Run, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Change one of the stored tensors, or leave it out."""
    tensors, header = read_tensors(run.predictions_path)
    changed = change(tensors.pop(name))
    write_tensors(run.predictions_path, tensors | ({} if changed is None else {name: changed}), header)


def test_damaged_files_are_named_and_leave_no_report(tmp_path: Path) -> None:
    damages: list[tuple[str, Any, type[Exception]]] = [
        ("predictions.safetensors", lambda run: run.predictions_path.unlink(), RunError),
        ("predictions.safetensors", lambda run: _cut(run.predictions_path), ModelError),
        ("predictions.safetensors", lambda run: write_tensors(run.predictions_path, {}, {"classes": []}), RunError),
        ("predictions.safetensors", lambda run: _edit_result(run, confusion=[[1, 2], [3, 4]]), RunError),
        ("predictions.safetensors", lambda run: _edit_result(run, accuracy=0.99), RunError),
        ("predictions.safetensors", lambda run: _edit_result(run, loss=0.01), RunError),
        ("predictions.safetensors", lambda run: _edit_result(run, ece=0.0), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "examples.counts", lambda _: None), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "examples.counts", lambda old: old + 1), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "random.rows", lambda old: old - 1), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "mistakes.rows", lambda old: old.int()), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "test.labels", lambda old: old.flip(0)), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "random.pixels", lambda old: old[:, 1:]), RunError),
        ("predictions.safetensors", lambda run: _edit_tensor(run, "test.probabilities", lambda old: old / 0), RunError),
        ("result.json", lambda run: _edit_result(run, per_class=[{}]), RunError),
        ("result.json", lambda run: setattr(run, "result", {**run.result, "kept_epoch": 2}), RunError),
        ("result.json", lambda run: setattr(run, "result", {"kept_epoch": 1}), RunError),
        ("result.json", lambda run: (run.path / "result.json").write_text("{"), RunError),
        ("metrics.csv", lambda run: (run.path / "metrics.csv").write_text("epoch,train_loss\n1,much\n"), RunError),
        ("metrics.csv", lambda run: (run.path / "metrics.csv").write_text("epoch\n1\n"), RunError),
        ("metrics.csv", lambda run: _edit_metrics(run, epoch=2), RunError),
        ("metrics.csv", lambda run: _edit_metrics(run, validation_loss=None), RunError),
        ("metrics.csv", lambda run: _edit_metrics(run, images_per_second=float("inf")), RunError),
        ("environment.json", lambda run: setattr(run, "environment", {"seed": 0}), RunError),
    ]
    for number, (file, damage, error) in enumerate(damages):
        run = make_run(tmp_path / str(number), images=20, epochs=1, size=(8, 8))
        damage(run)
        with pytest.raises(error, match=re.escape(file)) as caught:
            write(run)
        assert "expected" in str(caught.value)
        assert not (run.path / "report.html").exists()


def test_a_mistake_of_ours_in_drawing_is_not_blamed_on_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", images=20, epochs=1, size=(8, 8))
    monkeypatch.setattr(figures, "INK", "no colour")
    with pytest.raises(ValueError, match="no colour"):
        write(run)
    assert not (run.path / "report.html").exists()


# Numbers in words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (wording.ordinal(1), "1st"),
        (wording.ordinal(2), "2nd"),
        (wording.ordinal(11), "11th"),
        (wording.ordinal(112), "112th"),
        (wording.ordinal(1023), "1,023rd"),
        (wording.duration(0.04), "0.0 s"),
        (wording.duration(9.94), "9.9 s"),
        (wording.duration(9.96), "10 s"),
        (wording.duration(42.4), "42 s"),
        (wording.duration(59.6), "1 min 00 s"),
        (wording.duration(185), "3 min 05 s"),
        (wording.duration(3599.7), "1 h 00 min"),
        (wording.duration(7199), "2 h 00 min"),
        (wording.duration(10_920), "3 h 02 min"),
        (wording.scaled(0, "FLOP"), "0 FLOP"),
        (wording.scaled(999.9e9, "FLOP"), "1.00 TFLOP"),
        (wording.scaled(4.12e14, "FLOP"), "412 TFLOP"),
        (wording.scaled(4.12e13, "FLOP"), "41.2 TFLOP"),
        (wording.precise_percent(0.88642, 10_000), "88.64%"),
        (wording.precise_percent(0.886, 1000), "88.6%"),
        (wording.listed(["a"]), "a"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_read_as_people_write_them(found: str, expected: str) -> None:
    assert found == expected


@pytest.mark.parametrize("validation", [True, False])
def test_what_makes_the_curves_strange_is_said(tmp_path: Path, validation: bool) -> None:
    plain = rendered(make_run(tmp_path / "plain", validation=validation)).text
    words = ("image_scales=[0.625, 0.75, 1]", "selection.drop=0.5")
    strange = rendered(make_run(tmp_path / "strange", validation=validation, overrides=words)).text
    assert ("Training images grow from 62.5% to 100%" in strange) > ("Training images grow" in plain)
    assert ("leave out the images that the network finds easiest" in strange) > ("leave out the images" in plain)
    assert ("validation, at full size, looks worse" in strange) == validation
