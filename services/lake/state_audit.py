"""States as they are now, against the log: what the reading path of serving says of some rows, and what the
as-of join says of the same rows (``ideal``), bit for bit.

This is the audit for a log that stands still: everything has been folded, so an online state holds exactly
what happened before a moment behind the last event, and *ideal* is owed. (While requests go on, states lag;
audit.py judges what was served then.) It needs no snapshot, so a view can be judged before anything serves
it.

A row is a user, an item and a moment. Its entity is known to one side and not to the other: ``missing`` (the
log knows it) or ``extra`` (a state without events); both know it, and a value has other bits: a mismatch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.features import category_of
from services.contract.view_asof import asof
from services.contract.view_events import SHOWN
from services.contract.view_log import EventLog, Labels
from services.contract.view_registry import FeatureSet
from services.contract.view_values import Values

MINUTE_US = 60_000_000
# Half of the rows are of a pair that was shown, and of the others some of nobody and of nothing.
KNOWN_SHARE, NEWEST_SHARE, STRANGER_SHARE = 0.5, 0.1, 0.05
# How long behind the last event a moment is: at once, until the windows of minutes and hours are empty again.
MIN_AFTER_US, MAX_AFTER_US = 1_000, 180 * MINUTE_US


@dataclass
class ViewAudit:
    """Of one view. ``rows_not_default``: at least one of its columns is not the default by the log's word;
    ``columns``: rows whose value is not the default, and whose bits differ, by column."""

    rows: int = 0
    rows_not_default: int = 0
    mismatches: int = 0
    missing: int = 0
    extra: int = 0
    columns: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def wrong(self) -> int:
        """Rows that differ in any way."""
        return self.mismatches + self.missing + self.extra


def chosen_rows(log: EventLog, count: int, from_us: int, seed: int) -> Labels:
    """``count`` rows (user_id, item_id) at moments from ``from_us`` on, most of them soon after it: half of
    pairs that were shown (the newest ones as often as all others), the rest of users and items that have
    nothing to do with each other, some of which nobody knows."""
    rng = np.random.default_rng(seed)
    shown = np.flatnonzero(log.kind == SHOWN.code)
    shown = shown[np.argsort(log.occurred_us[shown], kind="stable")]
    newest = shown[-max(1, round(len(shown) * NEWEST_SHARE)) :]
    pool = np.where(rng.random(count) < 0.5, rng.choice(newest, count), rng.choice(shown, count))
    users = log.field("user_id")[pool].copy()
    items = log.field("item_id")[pool].copy()
    unrelated = rng.random(count) >= KNOWN_SHARE
    items[unrelated] = log.field("item_id")[rng.choice(shown, int(unrelated.sum()))]
    for column in (users, items):
        strange = rng.random(count) < STRANGER_SHARE
        column[strange] = rng.integers(1, 1 << 63, int(strange.sum()), dtype=np.uint64)
    after_us = np.exp(rng.uniform(np.log(MIN_AFTER_US), np.log(MAX_AFTER_US), count)).astype(np.int64)
    return Labels(from_us + after_us, {"user_id": users, "item_id": items})


def expected(
    features: FeatureSet, views: tuple[FeatureView, ...], log: EventLog, rows: Labels
) -> list[Values]:
    """What the log says of the rows, per view."""
    none = np.zeros(len(rows.at_us), np.int64)
    bare = Labels(rows.at_us, {**rows.fields, "category": none})
    category = category_of(features, asof(features.catalogue, log, bare))
    full = Labels(rows.at_us, {**rows.fields, "category": category})
    return [asof(view, log, full) for view in views]


def compared(view: FeatureView, online: Values, log_says: Values) -> ViewAudit:
    """One view's rows, side by side."""
    bits = [np.ascontiguousarray(one.values).view(np.uint32) for one in (online, log_says)]
    differs = bits[0] != bits[1]
    has_state, has_events = ~online.missing.astype(bool), ~log_says.missing.astype(bool)
    defaults = np.array([one.default for one in view.features], np.float32)
    not_default = log_says.values != defaults
    both = has_state & has_events
    return ViewAudit(
        rows=len(differs),
        rows_not_default=int((has_events & not_default.any(axis=1)).sum()),
        # Where neither knows anything, defaults are owed: other bits are of nobody's making.
        mismatches=int((differs.any(axis=1) & (both | (~has_state & ~has_events))).sum()),
        missing=int((has_events & ~has_state).sum()),
        extra=int((has_state & ~has_events).sum()),
        columns={
            one.name: {"not_default": _count(not_default[:, at]), "differ": _count(differs[:, at])}
            for at, one in enumerate(view.features)
        },
    )


def _count(mask: NDArray[np.bool_]) -> int:
    return int(mask.sum())


def as_dict(found: dict[str, ViewAudit]) -> dict[str, Any]:
    """By name of the view."""
    return {name: asdict(one) for name, one in found.items()}
