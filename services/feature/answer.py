"""From what Redis holds to the packed answer. Pure.

A ``Reading`` is one request on its way: it says which keys it still needs (at most twice: the states of
user x category are known by name only when the candidates' categories are), takes their values, and builds.
"""

# mypy: disallow-untyped-calls=False
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rec.v1.feature_pb2 import GetFeaturesResponse
from rec.v1.provenance_pb2 import Degradation
from services.contract.columns import F32, U8, U32
from services.feature import kernel
from services.feature.near_cache import Answered, NearCache
from services.feature.program import ITEM, PAIR, PER_CATEGORY, REQUEST, Layout, Stored
from services.feature.query import Query
from services.runtime import resp
from services.runtime.resp import Column, Reply

_ONE = np.zeros(1, np.int64)
# Length-delimited fields; a tag of one byte.
_TAGS = {
    field.name: bytes([field.number << 3 | 2])
    for field in GetFeaturesResponse.DESCRIPTOR.fields
    if field.number < 16
}


@dataclass(frozen=True)
class Answer:
    """A GetFeaturesResponse, serialised, and what is counted of it."""

    data: bytes
    missing_items: int
    missing_user: bool


class Reading:
    """``near``: where the states of items are kept, and for how long."""

    def __init__(self, layout: Layout, query: Query, near: NearCache, now_ns: int) -> None:
        self._layout, self._query, self._near, self._now_ns = layout, query, near, now_ns
        # A copy: the kernels are compiled for memory that may be written to.
        self._ids = np.array(query.item_ids, np.uint64)
        self._tick = near.begin()
        self._into = Answered.empty(len(self._ids), layout.feature_set)
        self.stale = near.gather(self._ids, query.at_us, now_ns, self._tick, self._into)
        self._wanted = self._ids[self.stale]
        # States of the request, of the candidates' categories, and of the candidates, one after the other.
        own, _, of_category, of_pair = layout.sizes
        pairs_at = own + of_category * (self._into.count + len(self.stale))
        self._starts = np.array((0, 0, own, pairs_at))
        self._strides = np.array((0, 0, of_category, of_pair))
        # At least one word: an answer without stored views has no states.
        self._states = np.empty(pairs_at + of_pair * len(self._ids) + 8, U8)
        # Categories whose states have been taken.
        self._asked = 0

    # -- what is read

    def first(self) -> list[Column]:
        """The keys that are known at once."""
        stored, user = self._layout.stored, self._query.user_id.to_bytes(8, "little")
        # Whole keys: one of no field has nothing after its prefix.
        own = [one.prefix + user * len(one.view.key) for one in stored[REQUEST]]
        columns = [(b"", key, len(key)) for key in own] + self._of_categories()
        if len(self._wanted):
            ids = self._wanted.tobytes()
            columns += [(one.prefix, ids, 8) for one in stored[ITEM]]
        return columns

    def take_first(self, reply: Reply) -> None:
        """The values of ``first``, in order."""
        at = self._take(REQUEST, _ONE, reply, 0)
        self._take_categories(reply, at)
        if len(self._wanted):
            self._near.take(
                self._wanted, self.stale, reply, self._query.at_us, self._now_ns, self._tick, self._into
            )

    def second(self) -> list[Column]:
        """Keys that were not known before the candidates' categories were; none is usual."""
        columns, pairs = self._of_categories(), self._layout.stored[PAIR]
        if pairs:
            fields = {"item_id": self._ids, "category": self._into.category_ids}
            columns += [self._column(one, fields, len(self._ids)) for one in pairs]
        return columns

    def take_second(self, reply: Reply) -> None:
        """The values of ``second``, in order."""
        at = self._take_categories(reply, 0)
        self._take(PAIR, np.arange(len(self._ids)), reply, at)

    def nothing(self) -> None:
        """Takes what is known when Redis cannot be asked."""
        self.take_first(Reply.nulls(resp.keys_of(self.first())))
        self.take_second(Reply.nulls(resp.keys_of(self.second())))

    def _of_categories(self) -> list[Column]:
        """Of categories that were not asked for yet."""
        into = self._into
        new = into.categories[self._asked : into.count]
        if not len(new):
            return []
        views = self._layout.stored[PER_CATEGORY]
        return [self._column(one, {"category": new}, len(new)) for one in views]

    def _column(self, one: Stored, fields: Mapping[str, NDArray], rows: int) -> Column:
        key = one.view.key
        entities = np.empty((rows, len(key)), np.uint64)
        for place, field in enumerate(key):
            entities[:, place] = self._query.user_id if field == "user_id" else fields[field].view(np.uint64)
        return one.prefix, entities.astype("<u8", copy=False).tobytes(), 8 * len(key)

    def _take_categories(self, reply: Reply, at: int) -> int:
        new = np.arange(self._asked, self._into.count)
        self._asked = self._into.count
        return self._take(PER_CATEGORY, new, reply, at) if len(new) else at

    def _take(self, group: int, rows: NDArray[np.int64], reply: Reply, at: int) -> int:
        start, stride = self._starts[group], self._strides[group]
        for one in self._layout.stored[group]:
            kernel.fill(reply.data, reply.spans, at, rows, one.size, self._states, start + one.start, stride)
            at += len(rows)
        return at

    # -- what is answered

    def build(self, degraded: Sequence[Degradation] = ()) -> Answer:
        """When all is taken."""
        layout, query, into, states = self._layout, self._query, self._into, self._states
        user, user_mask = np.empty((1, layout.feature_set.user_width), F32), np.zeros(1, U32)
        missing = np.empty(len(self._ids), U8)
        missing_items = kernel.complete(
            (states.view(np.int64), states.view(np.uint32), states), self._starts, self._strides,
            layout.programs, layout.category.columns, query.at_us, _signed(query.user_id),
            self._ids.view(np.int64), into.packed, (user, user_mask), layout.bits, missing,
        )  # fmt: skip
        mask, own = int(user_mask[0]), layout.of_user
        small = GetFeaturesResponse(
            schema_hash=layout.feature_set.schema_hash,
            user_features=user.tobytes(),
            missing_user=bool(own) and mask & own == own,
            missing_user_views=mask,
            view_age_s=[
                -1.0 if us == kernel.NEVER else max(query.at_us - us, 0) / 1e6 for us in into.newest.tolist()
            ],
            degraded=degraded,
        )
        large = {"item_features": into.items, "missing_items": missing, "missing_item_views": into.mask}
        return Answer(_joined(small, large), missing_items, small.missing_user)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _joined(small: GetFeaturesResponse, large: Mapping[str, Any]) -> bytes:
    """The bytes of the message with the large columns in it. A message is the concatenation of its fields,
    and protobuf would copy the large ones three times."""
    parts: list[Any] = [small.SerializeToString()]
    for name, column in large.items():
        parts += (_TAGS[name], _varint(column.nbytes), column)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def warm_up(layout: Layout) -> None:
    """Compiles (or loads from numba's cache) every kernel; call before the first request."""
    ids = np.arange(2, dtype=np.uint64)
    near = NearCache(layout, 2, 1.0)
    for item_ids in (ids, ids, ids[:0], ids + np.uint64(2)):
        reading = Reading(layout, Query(0, item_ids, 1), near, 0)
        reading.nothing()
        reading.build()
    resp.mget([(b"f:", bytes(16), 8)])
    keys = Reply()
    keys.feed(bytearray(b"*1\r\n$8\r\n12345678\r\n"), 0)
    near.drop(resp.ids_of(keys))
