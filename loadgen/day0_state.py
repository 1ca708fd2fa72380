"""The feature state of day 0, folded by the contract's own fold; what a seed later writes to Redis."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from loadgen.items import HiddenItems
from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract import features, redis_keys
from services.contract.feature_fold import ItemState, UserState, event_hash
from services.contract.feature_layout import ITEM_DTYPE, USER_BYTES, USER_DTYPE
from services.contract.ids import action_event_id

# As many earlier clicks as feature_pipeline pairs a click with.
CO_CLICK_PAIRS = 5


class Day0State:
    """States by index. Events older than the state are fine; the fold is commutative."""

    def __init__(self, hidden: HiddenItems, items: int, users: int, created_us: NDArray[np.int64]) -> None:
        self._ids = hidden.ids[:items]
        self._categories: list[int] = hidden.category[:items].tolist()
        created = created_us.tolist()
        self.items = [ItemState(c, at) for c, at in zip(self._categories, created, strict=True)]
        self.users: list[UserState | None] = [None] * users
        self.impressions = 0
        self.clicks = 0
        self.clicked: list[tuple[int, int]] = []
        self._co_clicks: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._no_user = bytes(USER_BYTES)

    def encode(
        self, users: NDArray[np.int64], items: NDArray[np.int64], at_us: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of users [n] and lists [n, k] at times [n]: [n, USER_WIDTH] and [n * k, ITEM_WIDTH]."""
        rows, shown = items.shape
        flat = items.ravel()
        item_bytes = b"".join([self.items[i].pack() for i in flat.tolist()])
        states = [self.users[u] for u in users.tolist()]
        user_bytes = b"".join([self._no_user if s is None else s.pack() for s in states])
        return features.encode_records(
            np.frombuffer(user_bytes, USER_DTYPE),
            np.frombuffer(item_bytes, ITEM_DTYPE),
            self._ids[flat],
            owner=np.repeat(np.arange(rows), shown),
            at_us=at_us,
            prior=features.prior_rate(self.impressions, self.clicks),
        )

    def shown(self, user: int, items: list[int], at_us: int) -> None:
        """One impression."""
        state = self.users[user]
        if state is None:
            state = self.users[user] = UserState()
        state.shown(at_us, [self._categories[i] for i in items])
        for i in items:
            self.items[i].shown(at_us)
        self.impressions += len(items)

    def click(self, user: int, item: int, at_us: int, request_id: str) -> None:
        """One click on an item shown before."""
        item_id = int(self._ids[item])
        state = self.users[user]
        assert state is not None, "a click follows its impression"
        for other in dict.fromkeys(click[2] for click in state.last_clicks[:CO_CLICK_PAIRS]):
            if other != item_id:
                self._co_clicks[item_id][other] += 1
                self._co_clicks[other][item_id] += 1
        hashed = event_hash(action_event_id(request_id, item_id, ACTION_KIND_CLICK))
        state.clicked(at_us, hashed, item_id, self._categories[item])
        self.items[item].clicked(at_us)
        self.clicks += 1
        self.clicked.append((item_id, at_us))

    def co_clicks(self) -> list[tuple[int, int, int]]:
        """(item id, other id, how often), the most frequent CO_CLICK_KEEP of each item."""
        return [
            (item, other, count)
            for item, others in self._co_clicks.items()
            for other, count in others.most_common(redis_keys.CO_CLICK_KEEP)
        ]
