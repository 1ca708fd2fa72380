"""AUC and log loss of served scores, exact. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-7


def auc(labels: NDArray, scores: NDArray) -> float | None:
    """Area under the ROC curve by rank sums, ties at half; None without both classes."""
    positives = labels > 0.5
    count_positive = int(positives.sum())
    count_negative = len(labels) - count_positive
    if count_positive == 0 or count_negative == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    mean_rank = last_rank - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positives].sum())
    return (rank_sum - count_positive * (count_positive + 1) / 2) / (count_positive * count_negative)


def log_loss(labels: NDArray, scores: NDArray) -> float | None:
    """Mean negative log likelihood in nats, scores clipped to [EPSILON, 1 - EPSILON]."""
    if len(labels) == 0:
        return None
    clipped = np.clip(scores.astype(np.float64), EPSILON, 1 - EPSILON)
    truth = labels.astype(np.float64)
    return float(-np.mean(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped)))
