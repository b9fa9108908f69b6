"""Our few measures against torchmetrics and scikit-learn, which others keep well."""

from __future__ import annotations

import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as oracle
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from thirtytwo import metrics

CLASSES = 7


def answers(seed: int, number: int = 500, classes: int = CLASSES, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (number,), generator=generator)
    scores = torch.randn((number, classes), generator=generator) * sharpness
    scores[torch.arange(number), labels] += 2.0
    return scores.softmax(1), labels


@pytest.mark.parametrize("seed", range(3))
def test_measures_agree_with_their_oracles(seed: int) -> None:
    probabilities, labels = answers(seed)
    predicted = probabilities.argmax(1)
    assert metrics.accuracy(probabilities, labels) == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    assert metrics.cross_entropy(probabilities, labels) == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities.double().numpy()), rel=1e-5
    )
    for k in (1, 3, 5):
        assert metrics.top_k(probabilities, labels, k) == pytest.approx(
            sklearn.metrics.top_k_accuracy_score(labels, probabilities.numpy(), k=k)
        )
    counts = metrics.confusion(probabilities, labels)
    assert counts.tolist() == sklearn.metrics.confusion_matrix(labels, predicted).tolist()
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for ours, theirs in zip(metrics.per_class(counts), expected, strict=False):
        assert ours.tolist() == pytest.approx(theirs.tolist())
    assert metrics.balanced_accuracy(counts) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(
        float(oracle.multiclass_calibration_error(probabilities, labels, CLASSES, n_bins=15, norm="l1")), abs=1e-6
    )


def test_a_class_that_never_occurs_and_is_never_predicted_scores_zero_and_does_not_count() -> None:
    probabilities = torch.eye(3)[[0, 0, 1]]
    counts = metrics.confusion(probabilities, torch.tensor([0, 0, 1]))
    assert [part.tolist() for part in metrics.per_class(counts)] == [[1, 1, 0]] * 3
    assert metrics.balanced_accuracy(counts) == 1.0


def test_certainty_in_the_wrong_class_is_a_large_finite_loss() -> None:
    assert 80 < metrics.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([1])) < 100


def test_top_five_of_two_classes_is_always_right() -> None:
    probabilities, labels = answers(0, classes=2)
    assert metrics.top_k(probabilities, labels, 5) == 1.0


def test_perfectly_calibrated_answers_have_no_calibration_error() -> None:
    probabilities = torch.tensor([[0.8, 0.2]]).repeat(1000, 1)
    labels = (torch.arange(1000) % 5 == 0).long()
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_reliability_bins_partition_the_images(seed: int, number: int) -> None:
    probabilities, labels = answers(seed, number)
    count, confidence, right = metrics.reliability(probabilities, labels)
    assert int(count.sum()) == number
    assert float((count * right).sum() / number) == pytest.approx(metrics.accuracy(probabilities, labels))
    low = torch.arange(15) / 15
    occupied = count > 0
    assert bool((confidence[occupied] > low[occupied] - 1e-9).all())
    assert bool((confidence[occupied] <= low[occupied] + 1 / 15 + 1e-9).all())


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_best_temperature_undoes_a_wrong_scale(factor: float) -> None:
    probabilities, _ = answers(0, number=20_000)
    labels = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    found = metrics.best_temperature(probabilities.log() * factor, labels)
    assert found == pytest.approx(factor, rel=0.05)


@given(st.integers(0, 50), st.floats(0.2, 5))
@settings(max_examples=20)
def test_no_other_temperature_is_better(seed: int, other: float) -> None:
    probabilities, labels = answers(seed)
    scores = probabilities.double().log()
    best = metrics.best_temperature(scores, labels)

    def loss(temperature: float) -> float:
        return metrics.cross_entropy((scores / temperature).softmax(1), labels)

    assert loss(best) <= loss(other) + 2e-3  # there is one image more
    assert metrics.best_temperature(scores * 2, labels) == pytest.approx(2 * best, rel=1e-6)


def test_where_all_are_right_or_none_the_temperature_ends_somewhere() -> None:
    labels = torch.arange(5)
    assert 0.1 < metrics.best_temperature(torch.eye(5), labels) < 1
    assert metrics.best_temperature(-torch.eye(5), labels) == pytest.approx(50)
    # More images that are named rightly allow to be surer.
    many = metrics.best_temperature(torch.eye(5).repeat(100, 1), labels.repeat(100))
    assert 0.02 < many < metrics.best_temperature(torch.eye(5), labels)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 1.0])
def test_so_many_images_reach_the_confidence(share: float) -> None:
    probabilities, _ = answers(3)
    least = metrics.confidence_of_share(probabilities, share)
    assert (probabilities.double().amax(1) >= least).double().mean() == pytest.approx(share, abs=1 / 500)


@given(number=st.integers(1, 100_000), share=st.floats(0, 1))
@settings(max_examples=100)
def test_at_either_end_of_the_interval_what_was_seen_is_just_believable(number: int, share: float) -> None:
    hits = round(share * number)
    seen = hits / number
    low, high = metrics.wilson(hits, number)
    assert 0 <= low <= seen + 1e-12
    assert seen - 1e-12 <= high <= 1
    for rate in (low, high):  # what was seen lies 1.96 standard deviations from it: Wilson's definition
        assert (seen - rate) ** 2 == pytest.approx(1.959964**2 * rate * (1 - rate) / number, rel=1e-3, abs=1e-12)


def test_answers_that_are_as_sure_as_they_are_right_err_by_chance_as_much_as_is_said() -> None:
    probabilities, _ = answers(0, number=300)
    errors = []
    for seed in range(300):  # labels drawn with the very probabilities that the answers claim
        labels = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
        errors.append(metrics.expected_calibration_error(probabilities, labels))
    assert metrics.calibration_error_by_chance(probabilities) == pytest.approx(sum(errors) / len(errors), rel=0.1)


@given(number=st.integers(1, 100_000), share=st.floats(0, 1), baseline=st.floats(0.01, 0.99))
@settings(max_examples=200)
def test_an_accuracy_is_at_the_baseline_unless_the_draw_of_the_images_hardly_lifts_that_so_high(
    number: int, share: float, baseline: float
) -> None:
    accuracy = round(share * number) / number
    above = accuracy - baseline - metrics.NORMAL_95 * (baseline * (1 - baseline) / number) ** 0.5
    assume(abs(above) > 1e-9)
    assert metrics.is_at_baseline(accuracy, baseline, number) is (above < 0)


def test_where_all_images_are_of_one_class_every_accuracy_is_at_the_baseline() -> None:
    assert metrics.is_at_baseline(1.0, 1.0, 5)
