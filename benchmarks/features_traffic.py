"""Requests for features over a Redis that holds a day of states, and the writes between them."""

from __future__ import annotations

import numpy as np
import redis

from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from services.contract import features, redis_keys, times
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.view_events import LISTED
from services.contract.view_init import initial_states
from services.contract.view_log import EventLog

FEATURES = FEATURE_SETS[WORLD]
CANDIDATES = 1_000
# What an impression writes between two requests: ten items shown, one of them clicked.
WRITTEN = 10
# Event time from one request to the next: hops end during a round.
STEP_US = 50_000


class Traffic:
    """States of a day in Redis, requests over them, and writes between the requests."""

    def __init__(self, log: EventLog, url: str) -> None:
        self._rng = np.random.default_rng(2)
        self._redis = redis.Redis.from_url(url)
        self._at_us = int(log.occurred_us.max()) + 1
        listed = _listings(log)
        self.states: dict[tuple[str, bytes], bytes] = {}
        for view in FEATURES.views:
            if view.kind == "instant":
                continue
            source = listed if "listed" in view.sources else log
            made = initial_states(view, source, {origin: 1 << 62 for origin in source.origins})
            self.states |= {(view.name, entity): state for entity, state in made.items()}
        self._views = {view.name: view for view in FEATURES.views}
        named = [(redis_keys.view_key(self._views[n], e), v) for (n, e), v in self.states.items()]
        for start in range(0, len(named), 10_000):
            self._redis.mset(dict(named[start : start + 10_000]))
        self._users = np.unique(log.fields["user_id"])
        self.items = np.unique(log.fields["item_id"])
        # The more an item was shown, the more often it is a candidate and is shown again.
        self._weights = np.bincount(np.searchsorted(self.items, log.fields["item_id"])) + 1.0
        self._weights /= self._weights.sum()
        lists = [self._rng.choice(self.items, CANDIDATES, False, self._weights) for _ in range(64)]
        self._lists = [one.astype("<u8") for one in lists]

    def request(self) -> GetFeaturesRequest:
        """A user's, and one of 64 candidate lists."""
        self._at_us += STEP_US
        candidates = self._lists[int(self._rng.integers(0, len(self._lists)))]
        made = GetFeaturesRequest(user_id=int(self._rng.choice(self._users)), item_ids=candidates.tobytes())
        made.occurred_at.CopyFrom(times.from_us(self._at_us))
        return made

    def write(self) -> None:
        """Ten items and a click, as the fold would."""
        shown = self._rng.choice(self.items, WRITTEN, True, self._weights)
        names = [("item_activity", item) for item in shown] + [("item_popularity", shown[0])]
        keys = [(name, int(item).to_bytes(8, "little")) for name, item in names]
        self._redis.mset(
            {
                redis_keys.view_key(self._views[n], e): self.states[n, e]
                for n, e in keys
                if (n, e) in self.states
            }
        )

    def wrong(self, request: GetFeaturesRequest, answer: GetFeaturesResponse) -> bool:
        """Whether an answer is not the reference encoding."""
        ids, at_us = np.frombuffer(request.item_ids, "<u8"), times.to_us(request.occurred_at)
        wanted = features.encode(FEATURES, self.states, request.user_id, ids, at_us)
        same = answer.user_features == wanted.user.tobytes()
        return not same or answer.item_features != wanted.items.tobytes() or bool(answer.degraded)


def _listings(log: EventLog) -> EventLog:
    items = np.unique(log.fields["item_id"])
    count = len(items)
    at_us = np.full(count, int(log.occurred_us.min()), np.int64)
    return EventLog(
        np.full(count, LISTED.code, np.uint8), at_us, items, at_us,
        np.zeros(count, np.int32), np.arange(count),
        {"item_id": items, "category": np.arange(count) % 20, "created_at": at_us},
    )  # fmt: skip
