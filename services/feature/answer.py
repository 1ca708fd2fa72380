"""From what Redis holds to the packed answer. Pure.

A ``Reading`` is one request on its way: it says which keys it still needs (at most twice: the states of
user x category are known by name only when the candidates' categories are), takes their values, and builds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rec.v1.feature_pb2 import GetFeaturesResponse
from services.contract import features, redis_keys
from services.contract.columns import F32, U8, U32, encode
from services.contract.feature_view import FeatureView
from services.contract.id_table import IdTable
from services.contract.view_plan import plan_of
from services.feature import kernel
from services.feature.kernel import NEVER
from services.feature.near_cache import Answered, NearCache, records_matrix
from services.feature.program import ITEM, PAIR, PER_CATEGORY, REQUEST, Layout, Program
from services.feature.query import Query

_NO_ITEMS = np.zeros(1, np.int64)
Values = list[bytes | None]


class Reading:
    """``near``: where the states of items are kept, and for how long."""

    def __init__(self, layout: Layout, query: Query, near: NearCache, now_ns: int) -> None:
        n = len(query.item_ids)
        self._layout, self._query, self._near, self._now_ns = layout, query, near, now_ns
        self._tick = near.begin()
        self._into = Answered(
            np.empty((n, layout.feature_set.item_width), F32),
            np.zeros(n, U32),
            np.full(len(layout.feature_set.views), NEVER, np.int64),
        )
        self.stale = near.gather(query.item_ids, None, query.at_us, now_ns, self._tick, self._into)
        self._wanted = query.item_ids[self.stale]
        self._own: Values = []
        # Categories that have been asked for: their place, and the states of each view.
        self._places = IdTable()
        self._states: list[Values] = [[] for _ in layout.groups[PER_CATEGORY]]
        self._pairs: list[Values] = [[] for _ in layout.groups[PAIR]]
        self._asked = np.zeros(0, np.int64)

    # -- what is read

    def first(self) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """Keys, and columns of (prefix, packed ids), as resp.mget takes them."""
        keys = [redis_keys.view_key(view, self._entity(view)) for view in self._layout.groups[REQUEST]]
        known: NDArray | slice = slice(None)
        if len(self.stale):
            known = np.ones(len(self._query.item_ids), bool)
            known[self.stale] = False
        packed = self._wanted.astype("<u8").tobytes()
        columns = [(redis_keys.view_prefix(view), packed) for view in self._layout.groups[ITEM] if packed]
        return keys + self._category_keys(known), columns

    def take_first(self, values: Values) -> None:
        """The values of ``first``, in order."""
        count = len(self._layout.groups[REQUEST])
        self._own = values[:count]
        at = self._take_categories(values, count)
        if not len(self._wanted):
            return
        records = []
        for view in self._layout.groups[ITEM]:
            size = plan_of(view).layout.size
            records.append(records_matrix(values[at : at + len(self._wanted)], size))
            at += len(self._wanted)
        self._near.put(self._wanted, records, self._now_ns, self._tick)
        query = self._query
        self._near.gather(query.item_ids, self.stale, query.at_us, self._now_ns, self._tick, self._into)

    def second(self) -> list[bytes]:
        """Keys that were not known before the candidates' categories were; none is usual."""
        keys: list[bytes] = []
        if len(self.stale):
            keys = self._category_keys(slice(None))
        else:
            self._asked = self._asked[:0]
        for view in self._layout.groups[PAIR]:
            prefix = redis_keys.view_prefix(view)
            keys += [prefix + entity for entity in features.entities(view, self._fields())]
        return keys

    def take_second(self, values: Values) -> None:
        """The values of ``second``, in order."""
        at = self._take_categories(values, 0)
        n = len(self._query.item_ids)
        for index in range(len(self._pairs)):
            self._pairs[index] = values[at : at + n]
            at += n

    def nothing(self) -> None:
        """Takes what is known when Redis cannot be asked."""
        keys, columns = self.first()
        self.take_first([None] * (len(keys) + sum(len(ids) // 8 for _, ids in columns)))
        self.take_second([None] * len(self.second()))

    def _entity(self, view: FeatureView) -> bytes:
        return b"".join(self._query.user_id.to_bytes(8, "little") for _ in view.key)

    def _categories(self) -> NDArray[np.int64]:
        return self._into.items[:, self._layout.feature_set.category_column].astype(np.int64)

    def _fields(self) -> dict[str, NDArray]:
        user = np.array([self._query.user_id], np.uint64)
        return {"user_id": user, "item_id": self._query.item_ids, "category": self._categories()}

    def _category_keys(self, known: NDArray | slice) -> list[bytes]:
        """Of categories among the ``known`` candidates that were not asked for yet."""
        column = self._into.items[:, self._layout.feature_set.category_column]
        category = column[known].astype(np.int64)
        before = len(self._places)
        rows = self._places.insert(category.view(np.uint64))
        found = np.zeros(len(self._places), np.int64)
        found[rows] = category
        self._asked = found[before:]
        return [
            redis_keys.view_prefix(view) + entity
            for view in self._layout.groups[PER_CATEGORY]
            for entity in self._of_categories(view)
        ]

    def _of_categories(self, view: FeatureView) -> list[bytes]:
        user = np.array([self._query.user_id], np.uint64)
        return features.entities(view, {"user_id": user, "category": self._asked}) if len(self._asked) else []

    def _take_categories(self, values: Values, at: int) -> int:
        for states in self._states:
            states.extend(values[at : at + len(self._asked)])
            at += len(self._asked)
        return at

    # -- what is answered

    def build(self) -> GetFeaturesResponse:
        """The answer without its degradations."""
        layout, query, into = self._layout, self._query, self._into
        category = self._categories()
        rows = self._places.lookup(category.view(np.uint64))
        count = len(self._places)
        words, starts, strides = self._records(count)
        user = np.empty((1, layout.feature_set.user_width), F32)
        user_mask = np.zeros(1, np.uint32)
        own = np.int64(np.uint64(query.user_id).view(np.int64))

        def run(program: Program, items: NDArray, categories: NDArray, out: NDArray, mask: NDArray) -> None:
            kernel.evaluate(
                words,
                starts,
                strides,
                program.packed,
                query.at_us,
                own,
                items,
                categories,
                out,
                mask,
                into.newest,
            )

        run(layout.request, _NO_ITEMS, _NO_ITEMS, user, user_mask)
        if layout.category.width and count:
            values, mask = np.empty((count, layout.category.width), F32), np.zeros(count, np.uint32)
            each = np.zeros(count, np.int64)
            each[rows] = category
            run(layout.category, each, each, values, mask)
            kernel.spread(values, mask, rows, layout.category.columns, into.items, into.mask)
        if layout.pair.width:
            run(layout.pair, query.item_ids.astype(np.uint64).view(np.int64), category, into.items, into.mask)
        return self._packed(user, int(user_mask[0]))

    def _records(self, categories: int) -> tuple[tuple[NDArray, ...], NDArray[np.int64], NDArray[np.int64]]:
        """All states but those kept near, one after the other."""
        layout = self._layout
        parts = [
            records_matrix([value], plan_of(view).layout.size)
            for view, value in zip(layout.groups[REQUEST], self._own, strict=True)
        ]
        starts, strides = np.zeros(4, np.int64), np.zeros(4, np.int64)
        at = layout.sizes[REQUEST]
        for group, states in ((PER_CATEGORY, self._states), (PAIR, self._pairs)):
            starts[group], strides[group] = at, layout.sizes[group]
            matrices = [
                records_matrix(values, plan_of(view).layout.size)
                for view, values in zip(layout.groups[group], states, strict=True)
            ]
            if matrices:
                parts.append(np.concatenate(matrices, axis=1))
                at += parts[-1].size
        # At least one word: an answer without stored views has no states.
        buffer = np.concatenate([*(part.ravel() for part in parts), np.zeros(8, np.uint8)])
        return (buffer.view(np.int64), buffer.view(np.uint32), buffer), starts, strides

    def _packed(self, user: NDArray[np.float32], user_mask: int) -> GetFeaturesResponse:
        layout, into, at_us = self._layout, self._into, self._query.at_us
        newest = into.newest.tolist()
        return GetFeaturesResponse(
            schema_hash=layout.feature_set.schema_hash,
            user_features=user.tobytes(),
            item_features=into.items.tobytes(),
            missing_items=encode((into.mask & layout.of_item) == layout.of_item, U8),
            missing_user=bool(layout.of_user) and user_mask & layout.of_user == layout.of_user,
            missing_item_views=encode(into.mask & ~np.uint32(layout.of_user), U32),
            missing_user_views=user_mask,
            view_age_s=[-1.0 if us == NEVER else max(at_us - us, 0) / 1e6 for us in newest],
        )


def warm_up(layout: Layout) -> None:
    """Compiles (or loads from numba's cache) every kernel; call before the first request."""
    ids = np.arange(2, dtype=np.uint64)
    near = NearCache(layout, 2, 1.0)
    for item_ids in (ids, ids, ids[:0], ids + np.uint64(2)):
        reading = Reading(layout, Query(0, item_ids, 1), near, 0)
        reading.nothing()
        reading.build()
    near.drop(ids)
