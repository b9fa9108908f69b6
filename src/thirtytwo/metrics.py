"""Measures of classification: tensors in, tensors or numbers out; and how far a share of images is to be trusted.

Throughout, `probabilities` is float (n, classes) with rows that sum to 1, `labels` is int64 (n,), n ≥ 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

NORMAL_95 = 1.959963984540054
"""Quantile of the standard normal distribution that leaves 2.5% on either side."""


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is the true one."""
    return float((probabilities.argmax(1) == labels).double().mean())


def accuracy_interval(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """95% interval of the accuracy on any images, as far as the draw of these n allows; see `wilson`."""
    return wilson(int((probabilities.argmax(1) == labels).sum()), len(labels))


def top_k(probabilities: Tensor, labels: Tensor, k: int = 5) -> float:
    """Share of images whose true class is among the k most probable (all classes, if there are fewer than k)."""
    best = probabilities.topk(min(k, probabilities.shape[1]), dim=1).indices  # (n, k)
    return float((best == labels[:, None]).any(1).double().mean())


def cross_entropy(probabilities: Tensor, labels: Tensor) -> float:
    """Mean of −log p(true class) in nats; a probability of 0 counts as the smallest normal float32."""
    true = probabilities.double().gather(1, labels[:, None])
    return float(-true.clamp_min(torch.finfo(torch.float32).tiny).log().mean())


def confusion(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Counts int64 (classes, classes): row = true class, column = predicted class."""
    classes = probabilities.shape[1]
    return torch.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2).reshape(classes, classes)


def per_class(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precision, recall and F1 of each class from a confusion matrix, float64 (classes,) each; 0 where undefined."""
    hits = counts.diag().double()
    predicted, true = counts.sum(0).double(), counts.sum(1).double()
    precision = hits / predicted.clamp_min(1)
    recall = hits / true.clamp_min(1)
    return precision, recall, 2 * hits / (predicted + true).clamp_min(1)


def balanced_accuracy(counts: Tensor) -> float:
    """Mean recall over the classes that occur."""
    return float(per_class(counts)[1][counts.sum(1) > 0].mean())


def reliability(probabilities: Tensor, labels: Tensor, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence against accuracy, in equal-width bins of the top probability.

    Bin b holds the confidences in (b / bins, (b + 1) / bins].

    Returns:
        Number of images int64 (bins,), their mean confidence and their accuracy, float64 (bins,), 0 where empty.
    """
    confidence, predicted = probabilities.double().max(1)
    bin_of = _bin_of(confidence, bins)
    number = torch.bincount(bin_of, minlength=bins)
    some = number.clamp_min(1)
    mean_confidence = torch.bincount(bin_of, weights=confidence, minlength=bins) / some
    share_right = torch.bincount(bin_of, weights=(predicted == labels).double(), minlength=bins) / some
    return number, mean_confidence, share_right


def _bin_of(confidence: Tensor, bins: int) -> Tensor:
    """int64 (n,): the bin of `reliability` that each confidence, float (n,), is in."""
    return (confidence * bins).ceil().long().clamp(1, bins) - 1


def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """What scores are to be divided by before the softmax, for the lowest cross-entropy (Guo et al. 2017).

    The loss is convex in the inverse of the temperature, so that halving an interval finds it to the last digits. One
    image more is counted that belongs to all classes in equal parts (Laplace's rule): it does not matter among
    thousands, and where all are named rightly it keeps answers from being surer than so many images can make them.

    Args:
        scores: float (n, classes), before the softmax, or log-probabilities.
        labels: int64 (n,).

    Returns:
        From 0.02 to 50.
    """
    scores = scores.double()
    # Means over all images, the one more included.
    true = (scores.gather(1, labels[:, None]).sum() + scores.mean()) / (len(scores) + 1)
    low, high = -math.log(50), math.log(50)  # of the logarithm of the inverse
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((scores * math.exp(middle)).softmax(1) * scores).sum(1).mean()
        low, high = (low, middle) if expected > true else (middle, high)
    return math.exp(-(low + high) / 2)


def confidence_of_share(probabilities: Tensor, share: float) -> float:
    """The top probability that this share of the images reaches, in [0, 1]."""
    ranked = probabilities.double().amax(1).sort(descending=True).values
    return float(ranked[max(math.ceil(share * len(ranked)), 1) - 1])


def calibration_error_by_chance(probabilities: Tensor, bins: int = 15) -> float:
    """About what `expected_calibration_error` would be, on average, if every confidence were right.

    It is not 0: of n images in a bin, the share that is right varies by chance, and the error counts every distance
    (the bias that Roelofs et al. 2022 describe, arXiv 2012.08668). Here the share is taken as normally distributed, or,
    where hardly a mistake is to be expected, as the sum of its images' own distances, which is its upper bound.
    """
    confidence = probabilities.double().amax(1)
    bin_of = _bin_of(confidence, bins)
    variance = torch.bincount(bin_of, weights=confidence * (1 - confidence), minlength=bins)  # of the number right
    distances = torch.minimum((variance * (2 / math.pi)).sqrt(), 2 * variance)  # of the number right, on average
    return float(distances.sum() / len(probabilities))


def confidence_margin(probabilities: Tensor) -> float:
    """How far, by chance (95%), accuracy lies from the mean confidence if every confidence is right.

    Whether an image is named rightly then varies by confidence × (1 - confidence), independently of the others.
    """
    confidence = probabilities.double().amax(1)
    return NORMAL_95 * float((confidence * (1 - confidence)).sum().sqrt()) / len(probabilities)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins of `reliability`, weighted by their images.

    Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017 (arXiv 1706.04599).
    """
    number, confidence, right = reliability(probabilities, labels, bins)
    return float((number * (confidence - right).abs()).sum() / number.sum())


def wilson(hits: float, number: int) -> tuple[float, float]:
    """95% interval for the rate behind `hits` of `number` independent trials.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927). It stays within
    [0, 1] and keeps its promise for rates near the ends, where the usual ± does not.

    Args:
        hits: how many of them succeeded; a mean over several looks at the same trials need not be whole.
        number: of the trials, at least 1.
    """
    rate, square = hits / number, NORMAL_95**2
    centre = (rate + square / (2 * number)) / (1 + square / number)
    reach = NORMAL_95 / (1 + square / number) * math.sqrt(rate * (1 - rate) / number + square / (4 * number**2))
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def majority_baseline(images: Iterable[int]) -> float:
    """The accuracy of always naming the most frequent class, where there are so many images of each class."""
    numbers = list(images)
    return max(numbers) / sum(numbers)


def is_at_baseline(accuracy: float, baseline: float, images: int) -> bool:
    """Whether so many images cannot tell an accuracy from a baseline's, or it is worse than that: a score test (95%).

    Args:
        accuracy: share of the images that are named rightly.
        baseline: the share that is named rightly by `majority_baseline`, say.
        images: how many there are.
    """
    return wilson(accuracy * images, images)[0] <= baseline
