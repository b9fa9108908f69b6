"""The page of an audit: what was found is there, side by side, or the page says what it leaves out."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.test_report import TEN, UGLY, Page, check_it_stands_alone, table
from thirtytwo import report
from thirtytwo.cli.show import Screen
from thirtytwo.data.images import Split
from thirtytwo.study.findings import Audit, BrokenFile, LabelIssue, OddImage, Overview, Pair

ENVIRONMENT: dict[str, Any] = {
    "command": "thirtytwo audit made",
    "machine": "a machine",
    "device": "cpu",
    "device_name": "a processor",
    "versions": {"torch": "2.13.0"},
    "commit": "0123456789ab+",
    "date": "2026-11-27T10:00:00+00:00",
}


def made(
    *,
    issues: int = 4,
    pairs: int = 3,
    odd: int = 1,
    broken: int = 0,
    classes: Sequence[str] = TEN,
    size: tuple[int, int] = (32, 32),
    paths: bool = False,
) -> Audit:
    """What an audit might find: so many of each kind and split, in pictures of noise, the largest that there are."""
    splits: tuple[Split, ...] = ("training", "test")
    doubts = [
        LabelIssue(
            split,
            number,
            "",
            classes[number % 2],
            classes[2 + number // 2 % (len(classes) - 2)],
            1 - number / (2 * issues),
        )
        for number in range(issues)
        for split in splits
    ]
    kinds: list[tuple[Split, Split]] = [("training", "test"), ("training", "training"), ("test", "test")]
    twins = [
        Pair(one, number, other, number + (one == other), 0.01 * number / pairs, "near" if number else "exact")
        for one, other in kinds
        for number in range(pairs)
    ]
    flat = [OddImage("training", number, "", "one colour") for number in range(odd)]
    named = [(issue.split, issue.index) for issue in doubts] + [(image.split, image.index) for image in flat]
    for pair in twins:
        named += [(pair.split_a, pair.index_a), (pair.split_b, pair.index_b)]
    generator = np.random.default_rng(0)
    places = list(dict.fromkeys(named))
    sizes = {size: 900, (500, 375): 99, (1, 1): 1} if paths else {size: 1000}
    return Audit(
        name="made",
        spec="/a/folder with spaces",
        location="memory",
        notice="",
        warnings=("a warning",),
        classes=tuple(classes),
        splits={
            "training": Overview(1000, (1000 - 90 * (len(classes) - 1), *[90] * (len(classes) - 1)), sizes),
            "test": Overview(100, (100 - 9 * (len(classes) - 1), *[9] * (len(classes) - 1)), {size: 100}),
        },
        issues=tuple(sorted(doubts, key=lambda issue: -issue.score)),
        pairs=tuple(twins),
        odd=tuple(flat),
        broken=tuple(BrokenFile("test", f"/a/test/cat/{number}.png", "0 bytes; <b>") for number in range(broken)),
        recipe="classic epochs=3: 3 epochs in batches of 500, no validation images",
        recipe_digest="0123456789abcdef",
        recipe_words=("classic", "epochs=3"),
        epochs=3,
        folds=3,
        accuracy={"training": 0.9, "test": 0.8},
        test_opening=2,
        seconds=100.0,
        pixels={place: generator.integers(0, 256, (*size, 3), dtype=np.uint8) for place in places},
        labels={(split, index): classes[index % 2] for split, index in places},
        paths={(split, index): f"/a/{split}/cat/{index}.png" for split, index in places} if paths else {},
        same_picture=0.1,
        environment=ENVIRONMENT,
    )


def written(found: Audit) -> Page:
    path = report.write_audit(Path(), found)
    assert path == Path("audit.html")
    return Page(path.read_text(encoding="utf-8"))


def test_networks_of_an_older_program_are_told() -> None:
    own = ENVIRONMENT["commit"]
    assert "trained by commit" not in written(replace(made(), network_commits=(own,))).text
    assert "Networks trained by commit" in written(replace(made(), network_commits=("a" * 40, own))).text


def test_every_suspicion_is_shown_with_what_was_given_and_suggested() -> None:
    found = made()
    page = written(found)
    labels = page.section("labels")
    for issue in found.issues:
        image = f'alt="{issue.split.capitalize()} image {issue.index}"'
        (told,) = re.findall(rf"<li\b[^>]*>(?:(?!</li>).)*{image}.*?</li>", labels.html, re.DOTALL)
        assert f">{issue.given}<" in told
        assert f">{issue.suggested}?<" in told
        assert f"score {issue.score:.3f}" in told
    assert len(labels.of("img")) == len(found.issues)
    assert len(page.section("leaks").of("img")) == 2 * len(found.leaks)
    assert len(page.section("duplicates").of("img")) == 2 * (len(found.pairs) - len(found.leaks))
    assert len(page.section("odd").of("img")) == len(found.odd)


def test_the_most_suspicious_come_first() -> None:
    page = written(made(issues=40))
    for split in ("Test images", "Training images"):
        part = page.html.partition(f"<h3>{split}: 40 of ")[2].partition("<h3>")[0]
        scores = [float(score) for score in re.findall(r"score (\d\.\d+)", part)]
        assert len(scores) == 40
        assert scores == sorted(scores, reverse=True)


def test_numbers_come_with_what_they_are_numbers_of() -> None:
    page = written(made(issues=25))
    assert "3.0%" in page.text  # 3 leaked of 100 test images
    assert "3 of n\u00a0=\u00a0100" in page.html
    assert "Doubtful training labels 25 2.5% of 1,000" in page.text
    assert "Doubtful test labels 25 25.0% of 100" in page.text
    assert "90.0% of the 1,000 training labels (95% Wilson interval 88.0% to 91.7%)" in page.text
    assert "3 pairs among 1,000" in page.text
    assert "0123456789ab, with uncommitted changes" in page.text
    assert "1 min 40 s of computing; pauses are not counted" in page.text


WEAK = replace(made(), accuracy={"training": 0.7, "test": 0.9})
UNEVEN = made(classes=["common", "other", "rare"])  # 820 of 1,000 training images are of one class


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (made(), ""),
        (WEAK, "The networks agree with only 70.0% of the training labels. Networks that agree with so few can hardly"),
        (
            replace(UNEVEN, accuracy={"training": 0.83, "test": 0.83}),
            "The networks agree with only 83.0% of the training labels, no more than always naming the most frequent",
        ),
        (replace(UNEVEN, accuracy={"training": 0.86, "test": 0.83}), ""),
    ],
    ids=["strong", "weak", "at the baseline", "above the baseline"],
)
def test_weak_networks_are_not_to_be_believed(found: Audit, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = written(found)
    opening = page.text.partition("Doubtful training labels")[0]
    assert (said in opening) if said else ("Leave out no image" not in opening)
    assert ("can hardly judge labels" in page.section("labels").text) is bool(said)
    Screen().audit(found, Path("audit.html"))
    before, _, after = capsys.readouterr().out.partition("to show the same picture as a training image")
    assert ("warning" in before) is bool(said)
    assert f"warning {said}" in before or not said
    assert "the most doubtful labels:" in after
    assert found.to_json()["is_weak"] is bool(said)
    assert found.tables["label_issues.csv"].count(b"\n") == 1 + len(found.issues)  # all the same


def test_where_networks_are_weak_the_next_step_is_a_stronger_audit_and_no_training() -> None:
    page = written(WEAK)
    assert "thirtytwo train" not in page.text
    assert "label_issues.csv" not in " ".join(text for tag, text in page.texts if tag == "code")
    command, evaluation = (text for tag, text in page.section("next").texts if tag == "code" and text.strip())
    expected = ["thirtytwo", "audit", "/a/folder with spaces", "--recipe", "classic epochs=6", "--networks", "3"]
    assert shlex.split(command) == [*expected, "--out", "."]
    assert evaluation == "thirtytwo evaluate RUN --exclude duplicates.csv"
    assert "repeats the audit with twice as many epochs" in page.section("next").text
    assert "repeats the audit" not in written(made()).section("next").text


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (("fast94", "epochs=3", "model.widths=[16, 48]"), ["fast94", "model.widths=[16, 48]", "epochs=6"]),
        (("fast94",), ["fast94", "epochs=6"]),
        (("my own.toml", "batch_size=50"), ["{here}/my own.toml", "batch_size=50", "epochs=6"]),
        ((), ["RECIPE", "epochs=6"]),
    ],
)
def test_the_stronger_audit_has_the_recipe_of_the_networks_with_more_epochs(
    words: tuple[str, ...], typed: list[str]
) -> None:
    page = written(replace(WEAK, recipe_words=words)).section("next")
    command = next(text for tag, text in page.texts if tag == "code" and text.strip())
    recipe = shlex.split(command)[shlex.split(command).index("--recipe") + 1]
    assert shlex.split(recipe) == [word.format(here=Path.cwd()) for word in typed]


def test_a_stronger_audit_of_arrays_is_made_in_python() -> None:
    text = written(replace(WEAK, spec="arrays")).section("next").text
    assert 'thirtytwo.study.audit(data, recipe.replace("epochs=6"), out)' in text
    assert "thirtytwo audit arrays" not in text


def test_on_the_screen_files_are_called_as_they_are_inside_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    files = "/a/pets/test/cat/3.png", "/a/petshop/4.png", ""
    issues = tuple(LabelIssue("test", number, path, "cat", "dog", 0.9) for number, path in enumerate(files))
    Screen().audit(replace(made(), location="/a/pets", issues=issues), Path("audit.html"))
    table = capsys.readouterr().out.partition("the most doubtful labels:")[2].splitlines()[2:5]
    assert [row.partition("  ")[0].strip() for row in table] == ["test/cat/3.png", "/a/petshop/4.png", "test 2"]
    Screen().audit(replace(made(), location="drawn by the package", issues=issues), Path("audit.html"))
    assert "/a/pets/test/cat/3.png" in capsys.readouterr().out
    assert issues[0].path in json.dumps(replace(made(), issues=issues).to_json())  # programs are told the whole path


@pytest.mark.parametrize(
    ("issues", "pairs", "expected"),
    [
        (25, 3, {"labels": "4.55%", "test images": "3.0%"}),  # 50 of 1,100 labels, 3 of 100 test images
        (1, 3, {"test images": "3.0%", "labels": "0.18%"}),
        (1, 0, {"labels": "0.18%", "test images": "0.0%"}),
        (0, 1, {"test images": "1.0%", "labels": "0.00%"}),
    ],
)
def test_the_page_opens_with_leaks_and_doubtful_labels_the_larger_share_first(
    issues: int, pairs: int, expected: dict[str, str]
) -> None:
    page = written(made(issues=issues, pairs=pairs))
    opening = re.findall(
        r'<p class="number">(.*?)</p>\s*<p class="what">of the (labels|test images) .*?:<br>(.*?)</p>', page.html
    )
    assert [(kind, number) for number, kind, _ in opening] == list(expected.items())
    counts = {kind: words.replace("\u00a0", " ") for _, kind, words in opening}
    assert counts["labels"] == f"{issues} of n = 1,000 training labels and {issues} of n = 100 test labels"
    assert counts["test images"].startswith(f"{pairs} of n = 100")
    assert ("nobody has checked" in counts["test images"]) is (pairs > 0)


def test_doubts_of_weak_networks_do_not_open_the_page() -> None:
    found = replace(made(issues=25), accuracy={"training": 0.7, "test": 0.7})
    leaks, doubts = re.findall(r'<p class="what">(.*?)<br>(.*?)</p>', written(found).html)
    assert leaks[0].startswith("of the test images")  # 3.0% of them, and 4.55% of the labels are doubted
    assert doubts[0] == "of the labels are doubted by networks that can hardly judge them:"
    assert doubts[1].endswith("test labels; the networks agree with only 70% of the training labels")
    assert "the networks agree with" not in written(made()).text


def test_a_pair_whose_labels_differ_says_so() -> None:
    found = made(pairs=1)  # of images 0 and 1 within a split, which have different labels, and 0 and 0 across
    page = written(found)
    assert "labels differ" in page.section("duplicates").text
    assert "labels differ" not in page.section("leaks").text
    assert "Same picture, other label 2 of 3 pairs in all" in page.text


def test_classes_and_sizes_are_counted() -> None:
    found = made(paths=True)
    page = written(found)
    rows = table(page, "Images of each class")
    assert [row[0] for row in rows] == list(TEN)
    assert [int(re.sub("<.*?>", "", row[1]).replace(",", "")) for row in rows] == list(
        found.splits["training"].per_class
    )
    assert table(page, "Sizes") == [["32 × 32", "900", "100"], ["500 × 375", "99", "0"], ["1 × 1", "1", "0"]]
    assert "All images have 32 × 32 pixels" in written(made()).text


def test_files_are_named_where_images_are_files() -> None:
    page = written(made(paths=True))
    assert "cat/2.png" in page.section("leaks").text
    assert 'title="test image 2, /a/test/cat/2.png"' in page.section("leaks").html


@pytest.mark.parametrize("size", [(32, 32), (300, 200)])
def test_a_page_of_thousands_of_suspicions_stays_small_and_says_what_it_leaves_out(size: tuple[int, int]) -> None:
    few = made(issues=2500, pairs=1500, odd=200) if size == (32, 32) else made(issues=150, pairs=150, odd=0, size=size)
    page = written(few)
    assert 2_500_000 < len(page.html.encode()) < 5_000_000
    told = {
        name: (int(shown.replace(",", "")), int(all_of.replace(",", "")))
        for name, shown, all_of in re.findall(
            r'<section id="(leaks)">.*?only the first ([\d,]+) of ([\d,]+) pairs', page.html, re.DOTALL
        )
    }
    shown, every = told["leaks"]
    assert every == len(few.leaks)
    assert 2 * shown == len(page.section("leaks").of("img")) > 20
    assert f"of {len(few.pairs) + len(few.issues) + len(few.odd):,}" not in page.text  # no number without its kind
    assert re.search(
        rf"found {len(few.pairs) + len(few.issues) + len(few.odd):,} suspicions; [\d,]+ of them are shown", page.text
    )


def test_room_that_one_kind_leaves_is_used_by_the_others() -> None:
    lone = replace(made(issues=2000, pairs=0, odd=0), issues=made(issues=2000, pairs=0).issues)
    shown = len(written(lone).of("img"))
    assert shown > 1.3 * len(written(made(issues=2000, pairs=2000)).section("labels").of("img"))


@pytest.mark.parametrize(("broken", "shown"), [(3, 3), (450, 200)])
def test_broken_files_are_named_with_what_is_wrong(broken: int, shown: int) -> None:
    page = written(made(broken=broken))
    rows = table(page, "Broken files")
    assert [row[0] for row in rows] == [f"/a/test/cat/{number}.png" for number in range(shown)]
    assert {(row[1], row[2]) for row in rows} == {("0 bytes; &lt;b&gt;", "test")}
    assert ("the table has all" in page.section("broken").text) == (shown < broken)
    assert f"Unreadable files {broken}" in page.text
    assert 'href="#broken"' in page.html
    assert 'id="broken"' not in written(made()).html


def test_tables_that_somebody_has_changed_are_told() -> None:
    def told(*edited: str) -> str:
        report.write_audit(Path(), made(), edited=edited)
        return Page(Path("audit.html").read_text(encoding="utf-8")).section("next").text

    tables = "label_issues.csv, duplicates.csv, odd_images.csv and broken_files.csv"
    assert f"This audit found 18 suspicions. They are listed in {tables} beside this page. Look at them" in told()
    assert "changed since" not in told()
    one = told("duplicates.csv")
    assert (
        "They are listed in label_issues.csv, odd_images.csv and broken_files.csv beside this page, but for those that "
        "belong in duplicates.csv. Look at them"
    ) in one
    assert "duplicates.csv was changed since an audit wrote it, so this audit left it alone: its lines need" in one
    two = told("duplicates.csv", "odd_images.csv")
    assert "duplicates.csv and odd_images.csv were changed since an audit wrote them, so this audit left them" in two
    for text in (one, two):
        assert "In the folder of this page, thirtytwo train " in text
    assert "listed in" not in told(*made().tables)


def struck_from(found: Audit, *edited: str) -> dict[str, list[str]]:
    """Lines of the tables that the page can save without some of their rows."""
    report.write_audit(Path(), found, edited=edited)
    html = Path("audit.html").read_text(encoding="utf-8")
    stored = re.search(r'<script type="application/json" id="tables">(.*?)</script>', html)
    assert (stored is None) is ("this page helps" not in html)
    tables = json.loads(stored[1]) if stored else {}
    assert len({table["key"] for table in tables.values()}) == len(tables)
    return {name: [table["columns"], *table["rows"]] for name, table in tables.items()}


def test_the_page_holds_the_tables_that_can_be_saved_without_what_is_struck_out() -> None:
    found = made(paths=True, classes=UGLY)
    tables = struck_from(found)
    assert list(tables) == ["label_issues.csv", "duplicates.csv"]
    for name, lines in tables.items():
        assert "".join(f"{line}\n" for line in lines).encode() == found.tables[name]
    # Somebody has changed a table, so that its rows need not be what is shown; or nobody should act on it.
    assert list(struck_from(found, "label_issues.csv")) == ["duplicates.csv"]
    assert struck_from(found, "label_issues.csv", "duplicates.csv") == {}
    assert list(struck_from(WEAK)) == ["duplicates.csv"]
    assert struck_from(made(issues=0, pairs=0)) == {}
    broken = [replace(issue, path="/a/two\nlines.png") for issue in found.issues]
    assert list(struck_from(replace(found, issues=tuple(broken)))) == ["duplicates.csv"]
    long = [replace(issue, path="/a/" + 4000 * "x") for issue in made(issues=100).issues]
    assert list(struck_from(replace(made(issues=100), issues=tuple(long)))) == ["duplicates.csv"]


def test_a_suspicion_knows_its_row() -> None:
    found = made(issues=40, pairs=3)
    seen: dict[str, list[int]] = {"labels": [], "pairs": []}
    for section in ("labels", "leaks", "duplicates"):
        html = written(found).section(section).html
        for line, split, index in re.findall(r'<li data-line="(\d+)">.*?alt="(Training|Test) image (\d+)"', html):
            if section == "labels":
                issue = found.issues[int(line)]
                assert (issue.split, issue.index) == (split.lower(), int(index))
            else:
                pair = found.pairs[int(line)]
                assert (pair.split_a, pair.index_a) == (split.lower(), int(index))
            seen["labels" if section == "labels" else "pairs"].append(int(line))
    assert sorted(seen["labels"]) == list(range(len(found.issues)))
    assert sorted(seen["pairs"]) == list(range(len(found.pairs)))


def test_files_that_a_training_would_refuse_are_to_be_removed_before_it() -> None:
    text = written(made(broken=3)).section("next").text
    before, _, after = text.partition("thirtytwo train ")
    assert "First remove the 3 files that cannot be read, named above and in broken_files.csv." in before
    assert before.endswith("Then, in the folder of this page, ")
    assert after.startswith("classic --data ")
    assert "First remove" not in written(made()).text
    report.write_audit(Path(), made(broken=3), edited=("broken_files.csv",))
    assert "and in broken_files.csv. A" not in Page(Path("audit.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (("fast94", "epochs=8", "model.widths=[16, 48]"), "fast94"),  # not the shorter training of an audit
        (("my own.toml",), "'{here}/my own.toml'"),
        ((), "RECIPE"),
    ],
)
def test_the_command_trains_with_the_recipe_of_the_networks(words: tuple[str, ...], typed: str) -> None:
    page = written(replace(made(), recipe_words=words)).section("next")
    command, _ = (text for tag, text in page.texts if tag == "code" and text.strip())
    recipe = shlex.split(typed.format(here=Path.cwd()))
    expected = ["thirtytwo", "train", *recipe, "--data", "/a/folder with spaces", "--exclude", "label_issues.csv"]
    assert shlex.split(command) == expected
    assert ("any other recipe will do" in page.text) is bool(words)


def test_that_a_test_image_is_leaked_is_told_as_far_as_it_is_known() -> None:
    unknown = written(made())
    assert "nobody has checked yet how many such pairs in these data are right" in unknown.section("leaks").text
    report.write_audit(Path(), made(), precision=(0.861, 0.89))
    known = Page(Path("audit.html").read_text(encoding="utf-8"))
    for page in (known.text, known.section("leaks").text):
        assert "86% to 89% show the same picture" in page
    assert "seem to show" in unknown.text


def test_nothing_found_is_a_page_too() -> None:
    page = written(made(issues=0, pairs=0, odd=0))
    assert "0.0%" in page.text
    assert "None was found: as far as pixels tell, none of the 100 test images shows the same picture" in page.text
    assert page.text.count("No label is in doubt.") == 2
    assert "This audit found nothing to suspect." in page.section("next").text
    assert "thirtytwo train" not in page.text
    assert not page.of("img")
    assert 'id="odd"' not in page.html


def test_names_are_told_as_they_are() -> None:
    page = written(made(classes=UGLY))
    assert "<script>alert" not in page.html
    assert UGLY[1] in page.text
    assert "classic --data '/a/folder with spaces' --exclude label_issues.csv" in page.text
    assert 'exclude="label_issues.csv"' in written(replace(made(), spec="arrays")).text


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = written(made())
    check_it_stands_alone(page)
    assert all(image["alt"] for image in page.of("img"))
