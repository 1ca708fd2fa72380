"""Moves what day 0 left to another time, as if the day had happened then. Pure, vectorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract import redis_keys
from services.contract.feature_layout import NO_HOP, TILE_US
from services.contract.model_state import ModelState


def _tiles(by_us: int) -> int:
    hops, rest = divmod(by_us, TILE_US)
    if rest:
        raise ValueError(f"{by_us} us is not a whole number of tiles of {TILE_US} us")
    return hops


def item_states(records: NDArray, by_us: int) -> NDArray:
    """Item states [n] as the fold would have left them had all happened ``by_us`` (whole tiles) later."""
    moved = records.copy()
    moved["newest_hop"] += np.where(moved["newest_hop"] == NO_HOP, 0, _tiles(by_us))
    moved["created_us"] += np.where(moved["created_us"] == 0, 0, by_us)
    return moved


def user_states(records: NDArray, by_us: int) -> NDArray:
    """User states [n], likewise."""
    moved = records.copy()
    moved["newest_hop"] += np.where(moved["newest_hop"] == NO_HOP, 0, _tiles(by_us))
    for field in ("first_us", "last_us", "click_us"):
        moved[field] += np.where(moved[field] == 0, 0, by_us)
    return moved


def popular(items: NDArray[np.uint64], click_us: NDArray[np.int64], by_us: int) -> dict[int, dict[int, int]]:
    """hop -> item id -> clicks, of the hops that recall still reads at the end of the day."""
    hops = (click_us + by_us) // redis_keys.POPULAR_HOP_US
    counted: dict[int, dict[int, int]] = {}
    newest = int(hops.max(initial=0))
    for hop in range(newest - redis_keys.POPULAR_HOPS + 1, newest + 1):
        ids, counts = np.unique(items[hops == hop], return_counts=True)
        if len(ids):
            counted[hop] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return counted


def model(state: ModelState, by_us: int) -> None:
    """Moves the times at which ids were last seen, in place: or else all would expire at once."""
    for table in state.tables.values():
        table.last_seen_us[table.last_seen_us > 0] += by_us
        ids, counts, seen_us = table.pending.items()
        table.pending.set(ids, counts, np.where(seen_us > 0, seen_us + by_us, 0))
    if state.trained_until_us:
        state.trained_until_us += by_us
