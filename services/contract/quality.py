"""How good scores are, judged by labels: the same figures in the trainer, in the gate and in the guard. Pure.

A row is positive when its label is above 0. Where negatives were left out, ``weights`` [n] say how many
rows each stands for; the AUC needs none, since its negatives are a fair draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EDGE = 1e-7


def auc(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Area under the ROC curve, ties counted as one half; NaN when only one class is there."""
    positive = labels > 0
    if positive.all() or not positive.any():
        return float("nan")
    return float((_ranks(scores)[positive] - _ranks(scores[positive])).mean() / (~positive).sum())


def auc_error(labels: NDArray, scores: NDArray) -> float:
    """Standard error of ``auc`` (DeLong, DeLong and Clarke-Pearson 1988); rows count as independent, which
    those of one user are not quite. NaN when a class has fewer than two rows."""
    positive = labels > 0
    if min(positive.sum(), (~positive).sum()) < 2:
        return float("nan")
    ranks, variance = _ranks(scores), 0.0
    for of, others in ((positive, ~positive), (~positive, positive)):
        # Of each row of one class: the share of the other class below it.
        below = (ranks[of] - _ranks(scores[of])) / others.sum()
        variance += float(below.var(ddof=1)) / len(below)
    return variance**0.5


def _ranks(scores: NDArray) -> NDArray[np.float64]:
    """1 for the lowest; ties share the middle of theirs."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def log_loss(
    labels: NDArray[np.float32], scores: NDArray[np.float32], weights: NDArray[np.float32] | None = None
) -> float:
    """Mean, by ``weights`` [n] if given, of -log of the probability given to what happened; NaN without
    rows."""
    if not len(labels):
        return float("nan")
    return float(np.average(losses(labels, scores), weights=weights))


def losses(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """-log of the probability given to what happened, of each row."""
    return -np.log(np.where(labels > 0, scores, 1 - scores).clip(_EDGE, 1))


def calibration(
    labels: NDArray[np.float32], scores: NDArray[np.float32], weights: NDArray[np.float32] | None = None
) -> float:
    """Clicks that came over clicks that the scores foretold: 1 is right, 2 says half of what comes; NaN
    without a forecast."""
    given = np.ones(len(labels)) if weights is None else weights
    foretold = float((scores * given).sum())
    return float(((labels > 0) * given).sum()) / foretold if foretold else float("nan")


def histogram(scores: NDArray[np.float32], bins: int = 20) -> NDArray[np.int64]:
    """Counts [bins] of scores over equal steps of the logit from -8 to 8; click probabilities crowd at 0."""
    place = (logit(scores) + 8) / 16 * bins
    return np.bincount(np.clip(place, 0, bins - 1).astype(np.int64), minlength=bins)


def logit(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    inside = np.clip(scores.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.log(inside / (1 - inside))


def population_stability(counts: NDArray[np.int64], baseline: NDArray[np.int64]) -> float:
    """PSI of two histograms: 0 the same, above 0.25 customarily another population. Half a row is added to
    each bin, so that an empty one is no infinity."""
    p, q = (
        (one + 0.5) / (one + 0.5).sum() for one in (counts.astype(np.float64), baseline.astype(np.float64))
    )
    return float(((p - q) * np.log(p / q)).sum())
