"""Moves the model that day 0 left to another time, as if the day had happened then. Pure, vectorised."""

from __future__ import annotations

import numpy as np

from services.contract.model_state import ModelState


def model(state: ModelState, by_us: int) -> None:
    """Moves the times at which ids were last seen, in place: or else all would expire at once."""
    for table in state.tables.values():
        table.last_seen_us[table.last_seen_us > 0] += by_us
        ids, counts, seen_us = table.pending.items()
        table.pending.set(ids, counts, np.where(seen_us > 0, seen_us + by_us, 0))
    if state.trained_until_us:
        state.trained_until_us += by_us
