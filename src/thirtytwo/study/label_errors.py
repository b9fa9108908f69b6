"""Which labels are probably wrong: confident learning (Northcutt, Jiang & Chuang 2021, arXiv 1911.00068).

A network that has not seen an image says how probable each class is. An image counts as one of class j if that is at
least as probable as it is, on average, for images labelled j; where that is another class than its label, the label is
in doubt. How many are named of each label and class is what these counts say of how often such labels are wrong.
cleanlab does that; the order is ours: by how much more probable the other class is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thirtytwo.data import Images
from thirtytwo.data.exclusion import file_of, picture_of
from thirtytwo.data.images import Split
from thirtytwo.errors import MissingExtra
from thirtytwo.study.findings import LabelIssue


def find(images: Images, split: Split, probabilities: Tensor) -> tuple[LabelIssue, ...]:
    """Images whose labels are in doubt, most suspicious first.

    Args:
        images: of one split, with the labels that they were given.
        split: which.
        probabilities: float32 (n, classes), of networks that were not trained with these images.

    Raises:
        MissingExtra: cleanlab is not installed.
    """
    check_installed()
    from cleanlab.filter import find_label_issues

    given, rows = images.labels, np.arange(len(images))
    answers = probabilities.double().numpy()
    answers = answers / answers.sum(1, keepdims=True)
    suggested = answers.argmax(1)
    if not (suggested != given).any():
        return ()
    occurring, labels = np.unique(given, return_inverse=True)
    # A class without images has no mean probability to be measured by.
    asked = answers[:, occurring]
    asked = asked / np.maximum(asked.sum(1, keepdims=True), 1e-300)
    doubted: NDArray[np.bool_] = find_label_issues(labels=labels, pred_probs=asked, n_jobs=1, verbose=False)
    doubted = doubted & (suggested != given)
    best, own = answers[rows, suggested], answers[rows, given]
    score = best / (best + own)
    order = np.lexsort((rows, -score))
    return tuple(
        LabelIssue(
            split=split,
            index=int(row),
            path=file_of(images, row),
            given=images.classes[given[row]],
            suggested=images.classes[suggested[row]],
            score=float(score[row]),
            picture=picture_of(images, row),
        )
        for row in order[doubted[order]]
    )


def check_installed() -> None:
    """Whether cleanlab is there.

    Raises:
        MissingExtra: it is not; says how to get it.
    """
    try:
        import cleanlab.filter  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("label errors are found with cleanlab", "audit", error) from None
