"""Figures of a run while it goes on: counters, a latency histogram, true click probabilities by time.

They are computed here as things happen; ``python -m local audit`` computes the same from the evidence files.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from loadgen.rows import AckRow, RequestRow

US = 1_000_000
CTR_SPAN_S = 20
LAST_S = 30
MAX_LATENCY_US = 60 * US


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class Live:
    """One run; ``start_us`` is the wall time from which spans are counted."""

    start_us: int
    requests: int = 0
    answered: int = 0
    unscored: int = 0
    clicks: int = 0
    impressions: int = 0
    candidates_min: int | None = None
    newest: tuple[int, int] = (0, 0)
    first_intended_us: int = 0
    last_intended_us: int = 0
    last_answered_us: int = 0
    degraded: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    # What ordinary life of the generator itself did wrong.
    late_sends: int = 0
    dropped_sends: int = 0
    unknown_items: int = 0
    histogram: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, MAX_LATENCY_US, 3))
    # request id -> which span it was shown in; how many of its items were shown, clicked.
    _span_of: dict[str, int] = field(default_factory=dict)
    _span_shown: Counter[int] = field(default_factory=Counter)
    _clicked: Counter[str] = field(default_factory=Counter)
    # (intended_us, shown, frozen) of the shadow-scored requests; the last LAST_S are asked for at the end.
    _paired: list[tuple[int, float, float]] = field(default_factory=list)
    _shown: _Mean = field(default_factory=_Mean)
    _ideal: _Mean = field(default_factory=_Mean)

    def request(self, row: RequestRow) -> None:
        """One intended request and what became of it."""
        self.requests += 1
        self.statuses[row.status] += 1
        self.first_intended_us = min(self.first_intended_us or row.intended_us, row.intended_us)
        self.last_intended_us = max(self.last_intended_us, row.intended_us)
        if row.status != "OK":
            return
        self.answered += 1
        self.last_answered_us = max(self.last_answered_us, row.answered_us)
        self.histogram.record_value(min(max(row.answered_us - row.intended_us, 1), MAX_LATENCY_US))
        known = self.candidates_min
        self.candidates_min = row.candidates if known is None else min(known, row.candidates)
        self.unscored += not row.scored
        if row.degraded:
            self.degraded.update(row.degraded.split(","))
        if row.scored and row.arm == "online":
            self.newest = max(self.newest, (row.generation, row.sequence))
        if row.shown_true_p is not None:
            self._shown.add(row.shown_true_p)
        if row.ideal_true_p is not None:
            self._ideal.add(row.ideal_true_p)
        if row.frozen_true_p is not None and row.shown_true_p is not None:
            self._paired.append((row.intended_us, row.shown_true_p, row.frozen_true_p))

    def acknowledged(self, row: AckRow) -> None:
        """One acknowledged event."""
        if row.kind == "impression":
            self.impressions += row.items
            span = (row.occurred_us - self.start_us) // (CTR_SPAN_S * US)
            self._span_of[row.request_id] = span
            self._span_shown[span] += row.items
        else:
            self.clicks += 1
            self._clicked[row.request_id] += 1

    def requests_per_s(self) -> float:
        """Answered requests per second, from the first intended to the last answered."""
        span_us = self.last_answered_us - self.first_intended_us
        return self.answered * US / span_us if span_us > 0 else 0.0

    def latency_ms(self) -> dict[str, float | None]:
        """p50 and p99 from the intended send time; None before the first answer."""
        return {
            f"p{q}": self.histogram.get_value_at_percentile(q) / 1000 if self.answered else None
            for q in (50, 99)
        }

    def ctr_per_span(self) -> list[float | None]:
        """Clicks / shown items by CTR_SPAN_S of event time; a click counts where its item was shown."""
        clicked: Counter[int] = Counter()
        for request_id, clicks in self._clicked.items():
            if request_id in self._span_of:
                clicked[self._span_of[request_id]] += clicks
        spans = range(max(self._span_shown, default=-1) + 1)
        return [clicked[span] / self._span_shown[span] if self._span_shown[span] else None for span in spans]

    def true_ctr_last(self) -> dict[str, float | None]:
        """Mean true click probability of the ten shown and of the ten that the frozen arm chose from the same
        candidates, over the shadow-scored requests of the last LAST_S seconds.
        """
        since = self.last_intended_us - LAST_S * US
        recent = [pair for pair in self._paired if pair[0] >= since]
        if not recent:
            return {"online": None, "frozen": None}
        return {
            "online": math.fsum(pair[1] for pair in recent) / len(recent),
            "frozen": math.fsum(pair[2] for pair in recent) / len(recent),
        }

    def true_ctr(self) -> dict[str, Any]:
        """Mean true click probability over the whole run: shown, and the best ten of the answers by truth."""
        return {"shown": self._shown.value(), "ideal": self._ideal.value()}

    @property
    def paired(self) -> int:
        """Requests that the frozen arm scored too."""
        return len(self._paired)
