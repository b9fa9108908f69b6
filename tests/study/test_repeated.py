"""What several trainings say together, to programs, on a screen and in a plot; their accuracies are made up here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from thirtytwo import metrics, report
from thirtytwo.cli.show import Screen
from thirtytwo.report import figures
from thirtytwo.run import Run
from thirtytwo.study import Repeated, Trial


def repeated(*accuracies: float, images: int = 5000, baseline: float = 0.1) -> Repeated:
    return Repeated(
        tuple(
            Trial(seed, Run(Path("unseen")), accuracy, 0.2, 1.0, True, images, baseline)
            for seed, accuracy in enumerate(accuracies)
        )
    )


def told(capsys: pytest.CaptureFixture[str], found: Repeated) -> list[str]:
    """What the screen says."""
    Screen().repeated(found, Path("plot.svg"))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_the_draw_of_images_seldom_moves_the_mean_further_than_told(rate: float) -> None:
    """Images are drawn that are more or less easy; three trainings answer for each draw of sixty."""
    generator = np.random.default_rng(0)
    within = 0
    for _ in range(1000):
        easy = generator.beta(rate, 1 - rate, 60)
        right = generator.random((3, 60)) < easy
        found = repeated(*map(float, right.mean(1)), images=60)
        within += abs(found.spread.mean - rate) <= found.margin_of_images
    assert within > 930


def test_where_all_are_right_few_images_still_leave_a_margin() -> None:
    few, many = (repeated(1.0, 1.0, images=images).margin_of_images for images in (15, 5000))
    assert few == 1 - metrics.wilson(15, 15)[0]
    assert few > 0.2 > 0.001 > many > 0


def test_several_trainings_have_a_spread_and_one_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    several = told(capsys, repeated(0.93, 0.94, 0.95))
    assert several[:2] == [
        "validation accuracy 94.00%, n = 3",
        "standard deviation 1.00%; 95% interval of the mean 91.52% to 96.48%",
    ]
    assert several[2].startswith("This speaks of seeds, not of the draw of the 5,000 validation images that all runs ")
    assert several[2].endswith("share, which adds ± 0.69 points (95%) at most")
    one = told(capsys, repeated(0.94))
    assert one[0] == "validation accuracy 94.00%, n = 1"
    assert one[1].startswith("one training has no spread")
    assert one[2].startswith("This speaks of one seed, not of the draw of the 5,000 validation images")
    assert not [line for line in one if "interval" in line or "deviation" in line]


def test_runs_that_are_all_alike_are_not_called_certain(capsys: pytest.CaptureFixture[str]) -> None:
    found = repeated(0.1, 0.1, 0.1)
    lines = told(capsys, found)
    assert lines[0] == "validation accuracy 10.00%, n = 3"
    assert lines[1].startswith("all 3 runs come to the same accuracy. Runs without any difference tell nothing about ")
    assert lines[2].startswith("This speaks of seeds, not of the draw of the 5,000 validation images")
    assert not [line for line in lines if "95% interval" in line or "deviation" in line]
    facts = found.to_json()
    assert (facts["standard_deviation"], facts["interval"]) == (0, None)
    json.dumps(facts, allow_nan=False)


def test_programs_are_told_the_same() -> None:
    found = repeated(0.5, 0.7, images=40, baseline=0.55)
    facts = found.to_json()
    assert facts == {
        **found.spread.to_json(),
        "seeds": [0, 1],
        "images": 40,
        "margin_of_images": found.margin_of_images,
        "majority_baseline": 0.55,
        "at_baseline": True,
        "commits": [],
    }
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(("accuracy", "is_told"), [(0.2, True), (0.1, True), (0.0, True), (0.6, False)])
def test_an_accuracy_no_better_than_the_baseline_is_called_that(
    capsys: pytest.CaptureFixture[str], accuracy: float, is_told: bool
) -> None:
    text = "\n".join(told(capsys, repeated(accuracy, images=15)))
    said = "that is no better than always naming the most frequent class, which would be right"
    assert (f"warning {said} 10.0% of the time, as far as 15 images can tell" in text) is is_told


def test_the_plot_says_what_was_trained_and_what_it_leaves_out(tmp_path: Path) -> None:
    found, words = repeated(0.93, 0.94, 0.95), "classic model.dropout=0.4"
    ElementTree.parse(report.write_spread(tmp_path, words, found))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["spread.png", "spread.svg"]
    (panel,) = figures.spread(words, found).axes
    assert panel.get_title(loc="left") == words
    assert "their mean with its 95% interval" in panel.get_xlabel()
    assert f"± {100 * found.margin_of_images:.2f} points (95%) at most" in panel.get_xlabel().replace("\n", " ")


def test_a_plot_of_one_training_or_of_ones_that_are_alike_draws_no_interval_and_says_so() -> None:
    for accuracies in ((0.94,), (0.94, 0.94, 0.94), (0.93, 0.94, 0.95)):
        (panel,) = figures.spread("classic", repeated(*accuracies)).axes
        markers = [str(line.get_marker()) for line in panel.lines]
        mean = ["|"] if len(accuracies) > 1 else []
        assert markers == ["o", *(["None"] if len(set(accuracies)) > 1 else []), *mean]
        assert ("of one training, which has no spread" in panel.get_xlabel()) is (len(accuracies) == 1)
        assert ("all alike, which tells nothing" in panel.get_xlabel()) is (accuracies == (0.94, 0.94, 0.94))
        assert ("interval" in panel.get_xlabel()) is (len(set(accuracies)) > 1)
        low, high = panel.get_xlim()
        assert low < min(accuracies) <= max(accuracies) < high
        assert high - low < 0.1  # an accuracy alone is not lost on a wide axis
