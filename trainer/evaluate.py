"""Progressive validation: every sample is judged by predictions made before it was learned. Pure.

A row is positive when its label is above 0. Where negatives were left out, those that are there stand for
them too; the AUC needs no such weights, since its negatives are a fair draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.quality import auc, log_loss


class Rolling:
    """The last ``size`` rows: labels, served scores, the candidate's own predictions, weights."""

    def __init__(self, size: int) -> None:
        self._rows = np.zeros((size, 4), np.float32)
        self._next = 0
        self._filled = 0

    def add(
        self,
        labels: NDArray[np.float32],
        served: NDArray[np.float32],
        own: NDArray[np.float32],
        negatives: NDArray[np.float32],
    ) -> None:
        """Adds rows [n]; the oldest leave. ``negatives``: how many a row with label 0 stands for."""
        weights = np.where(labels > 0, np.float32(1), negatives)
        new = np.column_stack((labels, served, own, weights))[-len(self._rows) :]
        places = (self._next + np.arange(len(new))) % len(self._rows)
        self._rows[places] = new
        self._next = int(self._next + len(new)) % len(self._rows)
        self._filled = min(len(self._rows), self._filled + len(new))

    def figures(self) -> dict[str, float]:
        """AUC and log loss of what was served and of the candidate, the share of positives, and how many rows
        they come from."""
        labels, served, own, weights = self._rows[: self._filled].T
        rate = float(np.average(labels > 0, weights=weights)) if self._filled else float("nan")
        return {
            "evaluated_rows": float(self._filled),
            "base_rate": rate,
            "auc_served": auc(labels, served),
            "auc_candidate": auc(labels, own),
            "log_loss_served": log_loss(labels, served, weights),
            "log_loss_candidate": log_loss(labels, own, weights),
        }
