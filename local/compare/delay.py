"""How long a sample takes: from Kafka's having the impression to Kafka's having the sample. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quantiles(seconds: NDArray[np.float64]) -> dict[str, float | None]:
    """p50 and p99; None without values."""
    if not len(seconds):
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def delays(
    shown_ms: NDArray[np.int64], appended_ms: NDArray[np.int64], labels: NDArray[np.float32]
) -> dict[str, dict[str, float | None]]:
    """Of all rows [n], of positives and of negatives: the former need not wait for the window's end."""
    seconds = (appended_ms - shown_ms) / 1000
    return {
        "all": quantiles(seconds),
        "positives": quantiles(seconds[labels > 0]),
        "negatives": quantiles(seconds[labels <= 0]),
    }
