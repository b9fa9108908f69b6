"""Measures of classification: tensors in, tensors or numbers out.

Throughout, `probabilities` is float (n, classes) with rows that sum to 1, `labels` is int64 (n,), n ≥ 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is the true one."""
    return float((probabilities.argmax(1) == labels).double().mean())


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
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    number = torch.bincount(bin_of, minlength=bins)
    some = number.clamp_min(1)
    mean_confidence = torch.bincount(bin_of, weights=confidence, minlength=bins) / some
    share_right = torch.bincount(bin_of, weights=(predicted == labels).double(), minlength=bins) / some
    return number, mean_confidence, share_right


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins of `reliability`, weighted by their images.

    Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017 (arXiv 1706.04599).
    """
    number, confidence, right = reliability(probabilities, labels, bins)
    return float((number * (confidence - right).abs()).sum() / number.sum())
