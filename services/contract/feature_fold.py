"""The fold of events into feature state: event time only, integers only, no clock, no I/O.

``ItemState`` and ``UserState`` are mutable and packed only when they are written (layouts: feature_layout).

Order: counts, tiles, categories and last clicks are commutative, so that any order of the same events gives
the same bytes. An event older than the oldest tile goes to the totals only. The one exception is
``ItemListed``: absolute values, the last in the log counts (one catalogue partition, one key: one order).

Repeats are not recognised here: ``origin_sequence`` and the marks (feature_events.Marks) drop them before.

Only CLICK counts as a click; other kinds of action move ``last_us`` and nothing else.
"""

from __future__ import annotations

import struct
import sys
from array import array

import xxhash

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, FeatureEvent
from services.contract import times
from services.contract.errors import MalformedRecord
from services.contract.feature_layout import (
    CATEGORIES,
    ITEM_BYTES,
    ITEM_VERSION,
    LAST_CLICKS,
    MAX_TILE,
    MAX_U16,
    MAX_U32,
    NO_HOP,
    TILE_US,
    TILES,
    USER_BYTES,
    USER_VERSION,
    readable_item,
    readable_user,
)

if sys.byteorder != "little":  # the packed arrays are this machine's own bytes
    raise ImportError("feature state needs a little-endian machine")

_ITEM_HEAD = struct.Struct("<BBHIIIqq")
_USER_HEAD = struct.Struct("<B3xIIIqqq")
_CLICKS = struct.Struct(f"<{LAST_CLICKS}q{2 * LAST_CLICKS}Q{LAST_CLICKS}B6x")
_EMPTY_TILES = array("I", [0] * (2 * TILES))
_EMPTY_CATEGORIES = array("H", [0] * (2 * CATEGORIES))
_TILES_BYTES = 8 * TILES
_CATEGORIES_BYTES = 4 * CATEGORIES

# (occurred_at us, event hash, item id, category): compares by (occurred_at, event hash) first.
Click = tuple[int, int, int, int]


def event_hash(event_id: str) -> int:
    """Breaks ties between clicks of the same microsecond."""
    return xxhash.xxh64_intdigest(event_id.encode(), seed=0)


def _known(category: int) -> int:
    return category if 0 <= category < CATEGORIES else 0


class _Counted:
    """Totals and tiles, which users and items have alike."""

    __slots__ = ("clicks", "impressions", "newest_hop", "tiles")

    def __init__(self) -> None:
        self.impressions = 0
        self.clicks = 0
        self.newest_hop = NO_HOP
        self.tiles = _EMPTY_TILES[:]

    def _tile(self, event_us: int) -> int:
        """Index of the event's tile in ``tiles`` (its impressions; clicks follow), -1 when it is too old."""
        hop = event_us // TILE_US
        age = self.newest_hop - hop
        if age < 0:
            shift = min(-age, TILES)
            self.tiles = _EMPTY_TILES[: 2 * shift] + self.tiles[: 2 * (TILES - shift)]
            self.newest_hop = hop
            return 0
        return 2 * age if age < TILES else -1

    def _count_impressions(self, event_us: int, count: int) -> None:
        self.impressions = min(self.impressions + count, MAX_U32)
        tile = self._tile(event_us)
        if tile >= 0:
            self.tiles[tile] = min(self.tiles[tile] + count, MAX_TILE)

    def _count_click(self, event_us: int) -> None:
        self.clicks = min(self.clicks + 1, MAX_U32)
        tile = self._tile(event_us)
        if tile >= 0:
            self.tiles[tile + 1] = min(self.tiles[tile + 1] + 1, MAX_TILE)


class ItemState(_Counted):
    """What is known of one item."""

    __slots__ = ("category", "created_us")

    def __init__(self, category: int = 0, created_us: int = 0) -> None:
        super().__init__()
        self.category = _known(category)
        self.created_us = created_us

    def listed(self, category: int, created_us: int) -> None:
        """The catalogue says so; ``created_us`` 0 = unknown."""
        self.category = _known(category)
        self.created_us = created_us

    def shown(self, event_us: int) -> None:
        """One impression."""
        self._count_impressions(event_us, 1)

    def clicked(self, event_us: int) -> None:
        """One click."""
        self._count_click(event_us)

    def pack(self) -> bytes:
        """ITEM_BYTES bytes."""
        head = _ITEM_HEAD.pack(
            ITEM_VERSION, self.category, 0, self.impressions, self.clicks, 0, self.created_us, self.newest_hop
        )
        return head + self.tiles.tobytes()

    @classmethod
    def unpack(cls, value: bytes) -> ItemState:
        """The state in a Redis value; MalformedRecord when it is none of this version."""
        if not readable_item(value):
            raise MalformedRecord.one("item state", f"{len(value)} bytes", f"{ITEM_BYTES} bytes, version 1")
        state = cls()
        (_, state.category, _, state.impressions, state.clicks, _, state.created_us, state.newest_hop) = (
            _ITEM_HEAD.unpack_from(value)
        )
        state.tiles = array("I", value[_ITEM_HEAD.size :])
        return state


class UserState(_Counted):
    """What is known of one user. ``last_clicks``: newest first, at most LAST_CLICKS."""

    __slots__ = ("categories", "first_us", "last_clicks", "last_us")

    def __init__(self) -> None:
        super().__init__()
        self.first_us = 0
        self.last_us = 0
        # Impressions of categories 0..63, then clicks.
        self.categories = _EMPTY_CATEGORIES[:]
        self.last_clicks: list[Click] = []

    def seen(self, event_us: int) -> None:
        """The user was there."""
        if self.first_us == 0 or event_us < self.first_us:
            self.first_us = event_us
        self.last_us = max(self.last_us, event_us)

    def shown(self, event_us: int, categories: list[int]) -> None:
        """One impression of ``len(categories)`` items."""
        self.seen(event_us)
        self._count_impressions(event_us, len(categories))
        counts = self.categories
        for category in categories:
            index = _known(category)
            if counts[index] < MAX_U16:
                counts[index] += 1

    def clicked(self, event_us: int, hashed_id: int, item_id: int, category: int) -> None:
        """One click; ``hashed_id`` is event_hash of its event id."""
        self.seen(event_us)
        self._count_click(event_us)
        index = CATEGORIES + _known(category)
        if self.categories[index] < MAX_U16:
            self.categories[index] += 1
        self.last_clicks.append((event_us, hashed_id, item_id, _known(category)))
        self.last_clicks.sort(reverse=True)
        del self.last_clicks[LAST_CLICKS:]

    def pack(self) -> bytes:
        """USER_BYTES bytes."""
        head = _USER_HEAD.pack(
            USER_VERSION, self.impressions, self.clicks, 0, self.first_us, self.last_us, self.newest_hop
        )
        empty = [(0, 0, 0, 0)] * (LAST_CLICKS - len(self.last_clicks))
        times_, hashes, items, categories = zip(*self.last_clicks, *empty, strict=True)
        clicks = _CLICKS.pack(*times_, *hashes, *items, *categories)
        return head + self.tiles.tobytes() + self.categories.tobytes() + clicks

    @classmethod
    def unpack(cls, value: bytes) -> UserState:
        """The state in a Redis value; MalformedRecord when it is none of this version."""
        if not readable_user(value):
            raise MalformedRecord.one("user state", f"{len(value)} bytes", f"{USER_BYTES} bytes, version 1")
        state = cls()
        (_, state.impressions, state.clicks, _, state.first_us, state.last_us, state.newest_hop) = (
            _USER_HEAD.unpack_from(value)
        )
        start = _USER_HEAD.size
        state.tiles = array("I", value[start : start + _TILES_BYTES])
        start += _TILES_BYTES
        state.categories = array("H", value[start : start + _CATEGORIES_BYTES])
        state.last_clicks = _unpack_clicks(value)
        return state


def _unpack_clicks(value: bytes) -> list[Click]:
    fields = _CLICKS.unpack_from(value, USER_BYTES - _CLICKS.size)
    k = LAST_CLICKS
    columns = (fields[:k], fields[k : 2 * k], fields[2 * k : 3 * k], fields[3 * k :])
    return [click for click in zip(*columns, strict=True) if click[0] != 0]


def last_clicked_items(user_value: bytes | None) -> list[int]:
    """Item ids of a user's last clicks, newest first; empty when there is no readable state."""
    if user_value is None or not readable_user(user_value):
        return []
    return [click[2] for click in _unpack_clicks(user_value)]


State = ItemState | UserState


def fold(state: State, event: FeatureEvent) -> None:
    """Applies one event to the state of the entity that it names; MalformedRecord when they do not fit.

    Barriers and empty events are not for this function.
    """
    kind = event.WhichOneof("event")
    at_us = times.to_us(event.occurred_at)
    if isinstance(state, ItemState):
        _fold_item(state, event, kind, at_us)
    else:
        _fold_user(state, event, kind, at_us)


def _fold_item(state: ItemState, event: FeatureEvent, kind: str | None, at_us: int) -> None:
    if kind == "item_shown":
        state.shown(at_us)
    elif kind == "item_acted":
        if event.item_acted.kind == ACTION_KIND_CLICK:
            state.clicked(at_us)
    elif kind == "item_listed":
        state.listed(event.item_listed.category, times.to_us(event.item_listed.created_at))
    else:
        raise MalformedRecord.one("event", kind, "item_shown, item_acted or item_listed for an item")


def _fold_user(state: UserState, event: FeatureEvent, kind: str | None, at_us: int) -> None:
    if kind == "user_shown":
        state.shown(at_us, list(event.user_shown.categories))
    elif kind == "user_acted":
        acted = event.user_acted
        if acted.kind == ACTION_KIND_CLICK:
            state.clicked(at_us, event_hash(event.event_id), acted.item_id, acted.category)
        else:
            state.seen(at_us)
    else:
        raise MalformedRecord.one("event", kind, "user_shown or user_acted for a user")
