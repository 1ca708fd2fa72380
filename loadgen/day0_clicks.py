"""What recall wants to know of day 0: which items were clicked when, and which together."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from services.contract import redis_keys
from services.contract.view_events import ACTED
from services.contract.view_log import EventLog

# As many earlier clicks as feature_pipeline pairs a click with.
CO_CLICK_PAIRS = 5


def clicks(log: EventLog) -> EventLog:
    """The clicks of a log in time order (day 0 has no other actions)."""
    rows = np.flatnonzero(log.kind == ACTED.code)
    return log.take(rows[np.argsort(log.occurred_us[rows], kind="stable")])


def co_clicks(clicked: EventLog) -> NDArray[np.uint64]:
    """[n, 3] (item id, other id, how often), the most frequent CO_CLICK_KEEP of each item; of ``clicks``."""
    last: defaultdict[int, list[int]] = defaultdict(list)
    pairs: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for user, item in zip(clicked.field("user_id").tolist(), clicked.field("item_id").tolist(), strict=True):
        before = last[user]
        for other in dict.fromkeys(before[:CO_CLICK_PAIRS]):
            if other != item:
                pairs[item][other] += 1
                pairs[other][item] += 1
        before.insert(0, item)
        del before[CO_CLICK_PAIRS:]
    rows = [
        (item, other, count)
        for item, others in pairs.items()
        for other, count in others.most_common(redis_keys.CO_CLICK_KEEP)
    ]
    return np.array(rows, np.uint64).reshape(-1, 3)
