"""The numbers that make a world. Two runs with equal numbers meet the same users, items and drift.

Day 0 is a day seen through ``sessions`` windows of ``session_s`` seconds, evenly spread over 24 hours and the
last one ending at world time 0. So its log has the request rate (and therefore the one-minute and
ten-minute counts) of the live run, and still every hour of the day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import FieldViolation, InvalidInput

DAY_S = 86_400.0
MAX_ITEMS = 5_000_000
MAX_USERS = 5_000_000
# Few, so that a user meets most of them.
MAX_CATEGORIES = 63


@dataclass(frozen=True)
class WorldConfig:
    """See the module docstring; contradictions die in the constructor (InvalidInput)."""

    seed: int = 7
    items: int = 100_000
    users: int = 20_000
    categories: int = 20
    births_per_s: float = 5.0
    user_births_per_s: float = 0.5
    # Day 0: 12 x 126 s x 66 requests/s x 10 shown = 998,000 on average; 132 s make it safely over a million.
    sessions: int = 12
    session_s: float = 132.0
    day0_rate: float = 66.0

    def __post_init__(self) -> None:
        """Refuses contradictions, all of them at once."""
        bad: list[FieldViolation] = []

        def need(ok: bool, field: str, value: object, allowed: str) -> None:
            if not ok:
                bad.append(FieldViolation(field, str(value), allowed))

        need(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2^63 - 1")
        need(1_000 <= self.items <= MAX_ITEMS, "items", self.items, f"1,000 to {MAX_ITEMS:,}")
        need(10 <= self.users <= MAX_USERS, "users", self.users, f"10 to {MAX_USERS:,}")
        need(2 <= self.categories <= MAX_CATEGORIES, "categories", self.categories, f"2 to {MAX_CATEGORIES}")
        need(self.births_per_s > 0, "births_per_s", self.births_per_s, "above 0")
        need(self.user_births_per_s > 0, "user_births_per_s", self.user_births_per_s, "above 0")
        need(self.day0_rate > 0, "day0_rate", self.day0_rate, "above 0")
        need(1 <= self.sessions <= 24, "sessions", self.sessions, "1 to 24")
        need(
            0 < self.session_s <= DAY_S / max(self.sessions, 1) / 2,
            "session_s",
            self.session_s,
            "above 0, and with pauses as long as the sessions inside a day",
        )
        if not bad:
            born = self.births_per_session * self.sessions
            need(
                born <= self.items // 2,
                "births_per_s",
                self.births_per_s,
                f"{born} births: at most half of all",
            )
        if bad:
            raise InvalidInput(bad)

    @property
    def births_per_session(self) -> int:
        """Items born in one session of day 0."""
        return int(self.births_per_s * self.session_s)

    @property
    def items_before_day0(self) -> int:
        """Items older than day 0."""
        return self.items - self.births_per_session * self.sessions

    @property
    def day0_start_s(self) -> float:
        """World time at which the first session begins."""
        return float(self.session_start_s(np.array(0)))

    def session_start_s(self, session: NDArray[np.int64]) -> NDArray[np.float64]:
        """World time at which each of the given sessions begins."""
        later = np.asarray(self.sessions - 1 - session, np.float64)
        return -later * (DAY_S / self.sessions) - self.session_s

    def category_shares(self) -> NDArray[np.float64]:
        """How many of all items each category has: a mild Zipf."""
        weight = 1 / np.sqrt(np.arange(1.0, self.categories + 1))
        return weight / weight.sum()
