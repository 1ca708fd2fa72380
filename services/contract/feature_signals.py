"""The numbers behind the encoding: named float32 arrays computed from joined state records.

All vectorised over rows; no row is treated alone. Definitions:

- *as of*: counts of tiles that lie after the tile of the request are left out of totals and windows (they are
  there when events overtake the request); within the request's own tile everything folded counts. The last
  clicks of a user are filtered exactly: occurred_at < at.
- *window of w minutes*: sawtooth, the request's tile and the w before it.
- *rate*: (clicks + s x prior) / (n + s), as the difference of its logit from the prior's, within [-3, 3]; n
  is the impressions, or the clicks when these are more (a click may be folded before its impression).
- *log counts*: log1p scaled, so that what occurs in practice stays within [0, 3].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_layout import CATEGORIES, TILE_US, TILES

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Signals = dict[str, Floats]

DAY_US = 86_400 * 1_000_000
NEW_ITEM_US = 10 * TILE_US
RATE_STRENGTH = 8.0
CATEGORY_STRENGTH = 5.0
MAX_LOGIT = 3.0
_SMALLEST_RATE = np.float32(1e-6)
_HALF = np.uint64(32)
_LOW = np.uint64((1 << 32) - 1)
_QUARTER = np.float32(1 / 4)
_THIRD = np.float32(1 / 3)


@dataclass(frozen=True)
class Counts:
    """Impressions and clicks, [3, n] float32 each: everything, one minute, ten minutes."""

    impressions: Floats
    clicks: Floats


def counts(records: NDArray, at_us: Ints) -> Counts:
    """Counts as of ``at_us`` [n or 1] for item or user records [n].

    A tile's two counters are summed as one 64-bit number, clicks in the upper half (see MAX_TILE).
    """
    behind = at_us // TILE_US - records["newest_hop"]
    # sums[:, k] = the k newest tiles together.
    sums = np.zeros((len(records), TILES + 1), np.uint64)
    np.cumsum(records["tiles"].view(np.uint64)[:, :, 0], axis=1, out=sums[:, 1:])
    start = np.arange(0, sums.size, TILES + 1)
    flat = sums.ravel()
    ahead = flat[start + np.clip(-behind, 0, TILES)]
    total = records["impressions"] + (records["clicks"].astype(np.uint64) << _HALF)
    seen = np.empty((3, len(records)), np.uint64)
    seen[0] = total - ahead
    seen[1] = flat[start + np.clip(2 - behind, 0, TILES)] - ahead
    seen[2] = flat[start + np.clip(TILES - behind, 0, TILES)] - ahead
    return Counts((seen & _LOW).astype(np.float32), (seen >> _HALF).astype(np.float32))


def smoothed(clicks: Floats, impressions: Floats, prior: Floats, strength: float) -> Floats:
    """A rate inside (0, 1), drawn to ``prior`` as if it had been seen in ``strength`` impressions."""
    rate = (clicks + strength * prior) / (np.maximum(impressions, clicks) + strength)
    return np.clip(rate, _SMALLEST_RATE, 1 - _SMALLEST_RATE)


def _rate(clicks: Floats, impressions: Floats, prior: Floats, strength: float = RATE_STRENGTH) -> Floats:
    """Logit of the smoothed rate minus the prior's, from the odds: exact near 0 and 1 too."""
    odds = (clicks + strength * prior) / (np.maximum(impressions - clicks, 0) + strength * (1 - prior))
    return np.clip(np.log(odds * ((1 - prior) / prior)), -MAX_LOGIT, MAX_LOGIT)


def _log_seconds(micros: Ints, scale: float) -> Floats:
    return np.log1p(np.maximum(micros, 0).astype(np.float32) * np.float32(1e-6)) * np.float32(1 / scale)


def _activity(name: str, seen: Counts, prior: Floats) -> Signals:
    rates = _rate(seen.clicks, seen.impressions, prior)
    logs = np.log1p(seen.impressions)
    return {
        f"{name}_rate": rates[0],
        f"{name}_log_impressions": logs[0] * _QUARTER,
        f"{name}_log_clicks": np.log1p(seen.clicks[0]) * _QUARTER,
        f"{name}_rate_1m": rates[1],
        f"{name}_log_impressions_1m": logs[1] * _THIRD,
        f"{name}_rate_10m": rates[2],
        f"{name}_log_impressions_10m": logs[2] * _THIRD,
    }


def catalogue_signals(category: Ints, created_us: Ints, at_us: Ints) -> Signals:
    """What the catalogue says of items [n]: the batch columns; ``at_us`` [n or 1]."""
    age = at_us - created_us
    dated = created_us > 0
    return {
        "category": np.minimum(category, CATEGORIES - 1),
        "item_log_age": np.where(dated, _log_seconds(age, 5.0), 0.0),
        "item_is_new": dated & (age < NEW_ITEM_US),
    }


def item_signals(items: NDArray, at_us: Ints, prior: Floats) -> Signals:
    """Signals of items [n] alone; ``at_us`` and ``prior`` [n or 1]."""
    return {
        **catalogue_signals(items["category"], items["created_us"], at_us),
        **_activity("item", counts(items, at_us), prior),
        "item_has_state": np.ones(len(items), np.float32),
    }


def user_signals(users: NDArray, seen: Counts, at_us: Ints, prior: Floats) -> Signals:
    """Signals of users [r] with their counts; ``at_us`` and ``prior`` [r or 1]."""
    valid = past_clicks(users, at_us)
    any_click = valid.any(axis=1)
    newest = np.where(valid, users["click_us"], 0).max(axis=1)
    day = (at_us % DAY_US) * (2 * np.pi / DAY_US)
    clicked = users["category_clicks"]
    clicks = clicked.sum(axis=1, dtype=np.int64)
    return {
        **_activity("user", seen, prior),
        "user_has_recent_click": any_click,
        "user_log_since_click": np.where(any_click, _log_seconds(at_us - newest, 5.0), 0.0),
        "user_log_since_seen": _log_seconds(at_us - users["last_us"], 5.0),
        "user_log_tenure": _log_seconds(at_us - users["first_us"], 5.0),
        "user_top_category_share": clicked.max(axis=1) / np.maximum(clicks, 1),
        "user_log_categories": np.log1p((clicked > 0).sum(axis=1)) * 0.5,
        "user_has_state": np.ones(len(users), np.float32),
        "hour_sin": np.sin(day),
        "hour_cos": np.cos(day),
    }


def past_clicks(users: NDArray, at_us: Ints) -> NDArray[np.bool_]:
    """Which of the last clicks [r, LAST_CLICKS] are there and happened before ``at_us``."""
    stored = users["click_us"]
    return (stored != 0) & (stored < at_us[:, None])


def cross_signals(
    users: NDArray,
    seen: Counts,
    items: NDArray,
    item_ids: NDArray[np.uint64],
    *,
    owner: Ints,
    at_us: Ints,
    prior: Floats,
) -> Signals:
    """Signals of item rows [n] for their users: row i belongs to users[owner[i]].

    ``seen`` are the users' counts; ``at_us`` and ``prior`` are per user, [r or 1].
    """
    # One user's values meet all rows by broadcasting, without a copy for each.
    of: NDArray | slice = slice(None) if len(users) == 1 else owner
    category = np.minimum(items["category"], CATEGORIES - 1)
    shown = users["category_impressions"][owner, category].astype(np.float32)
    clicked = users["category_clicks"][owner, category].astype(np.float32)
    own = smoothed(seen.clicks[0], seen.impressions[0], prior, RATE_STRENGTH)[of]
    valid = past_clicks(users, at_us)
    any_click = np.any(valid, axis=1, keepdims=True)[:, 0]
    # The newest valid one: entries stand newest first.
    latest = users["click_category"][np.arange(len(users)), np.argmax(valid, axis=1)]
    weight = valid / np.maximum(valid.sum(axis=1, keepdims=True), 1)
    same = users["click_category"][of] == category[:, None]
    again = (users["click_item"][of] == item_ids[:, None]) & valid[of]
    return {
        "cross_category_rate": _rate(clicked, shown, own, CATEGORY_STRENGTH),
        "cross_log_category_impressions": np.log1p(shown) * _THIRD,
        "cross_click_share": (same * weight.astype(np.float32)[of]).sum(axis=1),
        "cross_same_as_last_click": (latest[of] == category) & any_click[of],
        "cross_clicked_before": again.any(axis=1),
    }
