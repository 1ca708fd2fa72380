"""Progressive validation: every sample is judged by predictions made before it was learned. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EDGE = 1e-7


def auc(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Area under the ROC curve, ties counted as one half; NaN when only one class is there."""
    positives = float((labels > 0).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = last - (counts - 1) / 2
    above = float(rank[inverse[labels > 0]].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def log_loss(labels: NDArray[np.float32], scores: NDArray[np.float32]) -> float:
    """Mean of -log of the probability given to what happened; NaN without rows."""
    if not len(labels):
        return float("nan")
    given = np.where(labels > 0, scores, 1 - scores).clip(_EDGE, 1)
    return float(-np.log(given).mean())


class Rolling:
    """The last ``size`` rows: labels, served scores, the candidate's own predictions."""

    def __init__(self, size: int) -> None:
        self._rows = np.zeros((size, 3), np.float32)
        self._next = 0
        self._filled = 0

    def add(self, labels: NDArray[np.float32], served: NDArray[np.float32], own: NDArray[np.float32]) -> None:
        """Adds rows [n]; the oldest leave."""
        new = np.column_stack((labels, served, own))[-len(self._rows) :]
        places = (self._next + np.arange(len(new))) % len(self._rows)
        self._rows[places] = new
        self._next = int(self._next + len(new)) % len(self._rows)
        self._filled = min(len(self._rows), self._filled + len(new))

    def figures(self) -> dict[str, float]:
        """AUC and log loss of what was served and of the candidate, and how many rows they come from."""
        rows = self._rows[: self._filled]
        labels, served, own = rows[:, 0], rows[:, 1], rows[:, 2]
        return {
            "evaluated_rows": float(self._filled),
            "base_rate": float(labels.mean()) if self._filled else float("nan"),
            "auc_served": auc(labels, served),
            "auc_candidate": auc(labels, own),
            "log_loss_served": log_loss(labels, served),
            "log_loss_candidate": log_loss(labels, own),
        }
