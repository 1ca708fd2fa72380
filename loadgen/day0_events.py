"""What feature views see of day 0: the catalogue, every shown item, every click, as the loop's log would."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loadgen.world import World
from rec.events.v1.events_pb2 import ACTION_KIND_CLICK
from services.contract.feature_events import PARTS_PER_RECORD
from services.contract.ids import action_event_id, impression_event_id
from services.contract.view_events import ACTED, ALL_FIELDS, LISTED, SHOWN, EventKind, event_hash
from services.contract.view_log import EventLog, joined

if TYPE_CHECKING:
    from loadgen.day0_log import Shown

# What the catalogue says holds for all time.
LISTED_US = 0


class Day0Events:
    """Grows by sessions."""

    def __init__(self, world: World, items: int, created_us: NDArray[np.int64]) -> None:
        self._users, self._items = world.users.ids, world.items.ids
        self._category = world.items.category.astype(np.int64)
        self._impressions = self._actions = 0
        place = np.arange(items)
        fields = {
            "item_id": self._items[:items],
            "category": self._category[:items],
            "created_at": created_us,
        }
        self._logs = [_log(LISTED, np.full(items, LISTED_US), place.astype(np.uint64), place, fields)]

    def add(self, shown: Shown, request_ids: list[str], after_us: int) -> None:
        """A session's lists, seen ``after_us`` after their requests, and its clicks."""
        rows, width = shown.items.shape
        row = np.repeat(np.arange(rows), width)
        place = np.tile(np.arange(width), rows)
        hashed = np.array([event_hash(impression_event_id(one)) for one in request_ids], np.uint64)
        fields = self._fields(shown.users[row], shown.items.ravel()) | {"position": place}
        offset = self._impressions + row
        self._logs.append(
            _log(
                SHOWN,
                shown.at_us[row] + after_us,
                hashed[row] ^ fields["item_id"],
                offset * PARTS_PER_RECORD + 1 + place,
                fields,
            )
        )
        self._impressions += rows
        self._add_clicks(shown, request_ids)
        # Joined anew when it is asked for.
        self.__dict__.pop("log", None)

    def _add_clicks(self, shown: Shown, request_ids: list[str]) -> None:
        row, place = np.nonzero(shown.click_us)
        turn = np.argsort(shown.click_us[row, place], kind="stable")
        row, place = row[turn], place[turn]
        fields = self._fields(shown.users[row], shown.items[row, place])
        ids = zip(row.tolist(), fields["item_id"].tolist(), strict=True)
        hashed = [event_hash(action_event_id(request_ids[at], item, ACTION_KIND_CLICK)) for at, item in ids]
        offset = self._actions + np.arange(len(row))
        fields["action"] = np.full(len(row), ACTION_KIND_CLICK)
        self._logs.append(
            _log(
                ACTED,
                shown.click_us[row, place],
                np.array(hashed, np.uint64),
                offset * PARTS_PER_RECORD,
                fields,
            )
        )
        self._actions += len(row)

    def _fields(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> dict[str, NDArray]:
        return {
            "user_id": self._users[users],
            "item_id": self._items[items],
            "category": self._category[items],
        }

    @cached_property
    def log(self) -> EventLog:
        """All events so far."""
        self._logs = [joined(self._logs)]
        return self._logs[0]


def _log(
    kind: EventKind,
    occurred_us: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sequence: NDArray[np.int64],
    fields: dict[str, NDArray],
) -> EventLog:
    """Events of one partition; fields that are not given are 0."""
    rows = len(occurred_us)
    whole = {
        name: fields.get(name, np.zeros(rows)).astype(np.uint64 if field.type == "id" else np.int64)
        for name, field in ALL_FIELDS.items()
    }
    return EventLog(
        np.full(rows, kind.code, np.uint8),
        occurred_us,
        hashes,
        occurred_us,
        np.zeros(rows, np.int32),
        sequence,
        whole,
        (f"{kind.topic}/0",),
    )
