"""A small loop without processes: requests served from states that the real fold made, the real encoding, and
everything that happened in a lake written by the real writer.

Event time is wall time. A record that was appended at a ms is in the states ``lag_us`` later.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.columns import F32, U64, encode
from services.contract.feature_view import FeatureView
from services.contract.features import Encoded
from services.contract.features import encode as encode_features
from services.contract.ids import action_event_id, impression_event_id, snapshot_event_id
from services.contract.lake_rows import LogRecord
from services.contract.lake_schema import TOPIC_OF
from services.contract.lake_store import LakeStore
from services.contract.times import from_us
from services.contract.topics import EVENT_PARTITIONS, partition_of, request_key
from services.contract.view_events import Event, event_hash
from services.contract.view_fold import OriginMarks, StateKey, ViewFold
from services.contract.view_registry import FeatureSet
from services.lake.partition import PartitionWriter

START_US = 1_760_000_000_000_000
STEP_US = 4_000_000
ITEMS_SHOWN = 6
TABLE_OF = {topic: table for table, topic in TOPIC_OF.items()}
# How a fold is broken on purpose: what it takes an event of a view for.
Plant = Callable[[FeatureView, Event], Event]


@dataclass(frozen=True)
class Served:
    """One request: what it was answered with, when."""

    request_id: str
    user_id: int
    item_ids: np.ndarray
    at_us: int
    encoded: Encoded


@dataclass
class Loop:
    """``run`` requests, then ``write`` the lake. ``lag_us``: of the fold."""

    feature_set: FeatureSet
    seed: int = 1
    lag_us: int = 250_000
    users: int = 12
    items: int = 30
    plant: Plant | None = None
    served: list[Served] = field(default_factory=list)
    # (topic, partition) -> records in order.
    logs: dict[tuple[str, int], list[LogRecord]] = field(default_factory=lambda: defaultdict(list))
    states: dict[StateKey, bytes] = field(default_factory=dict)
    # In the order of append: (appended us, view events).
    online: list[tuple[int, list[Event]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._folds = [
            (view, ViewFold([view], OriginMarks(), self.states.get)) for view in self.feature_set.views
        ]
        self._folded = 0
        self._due: list[tuple[int, int, str, str, ev.EventRecord]] = []
        self._category = {1000 + at: 1 + at % 5 for at in range(self.items)}

    def run(self, requests: int) -> Loop:
        """One request every STEP_US, its impression and its clicks later."""
        rng, known = self._rng, list(self._category)[: self.items * 2 // 3]
        for item in known:
            self._list(item, START_US - 10_000_000)
        for number in range(requests):
            now_us = START_US + number * STEP_US + rng.randrange(STEP_US // 2)
            self._append_due(now_us)
            if rng.random() < 0.1 and len(known) < self.items:
                born = list(self._category)[len(known)]
                known.append(born)
                self._list(born, now_us)
            self._fold(now_us)
            self._serve(f"r{self.seed}-{number}", now_us, rng.sample(known, ITEMS_SHOWN))
        self._append_due(START_US + requests * STEP_US * 2)
        return self

    def _serve(self, request_id: str, now_us: int, items: list[int]) -> None:
        rng, user = self._rng, 1 + self._rng.randrange(self.users)
        ids = np.array(items, np.uint64)
        named = {view.definition_hash: view.name for view in self.feature_set.views}
        states = {(named[view], entity): state for (view, entity), state in self.states.items()}
        encoded = encode_features(self.feature_set, states, user, ids, now_us)
        self.served.append(Served(request_id, user, ids, now_us, encoded))
        at = from_us(now_us)
        snapshot = ev.FeatureSnapshot(
            event_id=snapshot_event_id(request_id), request_id=request_id, occurred_at=at, user_id=user,
            scored_at=at, schema_hash=self.feature_set.schema_hash, arm="online", item_ids=encode(ids, U64),
            scores=encode(np.full(len(ids), 0.1), F32), user_features=encode(encoded.user, F32),
            item_features=encode(encoded.items, F32),
        )  # fmt: skip
        self._later(
            now_us + 5_000, topics.FEATURE_SNAPSHOTS.name, request_id, ev.EventRecord(snapshot=snapshot)
        )
        shown_us = now_us + rng.randrange(20_000, 400_000)
        shown = ev.Impression(
            event_id=impression_event_id(request_id), request_id=request_id, occurred_at=from_us(shown_us),
            user_id=user, item_ids=items,
        )  # fmt: skip
        late_us = rng.choice((2_000, 90_000, 90_000, 9_000_000))
        self._later(shown_us + late_us, topics.IMPRESSIONS.name, request_id, ev.EventRecord(impression=shown))
        for item in items:
            if rng.random() < 0.2:
                clicked_us = shown_us + rng.randrange(100_000, 8_000_000)
                action = ev.Action(
                    event_id=action_event_id(request_id, item, 1), request_id=request_id, user_id=user,
                    occurred_at=from_us(clicked_us), item_id=item, kind=ev.ACTION_KIND_CLICK,
                )  # fmt: skip
                action.dwell.FromMilliseconds(rng.randrange(100, 60_000))
                record = ev.EventRecord(action=action)
                self._later(clicked_us + 30_000, topics.ACTIONS.name, request_id, record)

    def _later(self, at_us: int, topic: str, request_id: str, record: ev.EventRecord) -> None:
        heapq.heappush(
            self._due, (at_us, len(self._due) + self._rng.randrange(10**9), topic, request_id, record)
        )

    def _append_due(self, now_us: int) -> None:
        while self._due and self._due[0][0] < now_us:
            at_us, _, topic, request_id, record = heapq.heappop(self._due)
            partition = partition_of(request_key(request_id), EVENT_PARTITIONS)
            offset = self._append(topic, partition, at_us, record.SerializeToString())
            events = list(self._events(record, f"{topic}/{partition}", offset * 1024))
            self.online.append((at_us // 1000 * 1000, events))

    def _append(self, topic: str, partition: int, at_us: int, raw: bytes) -> int:
        log = self.logs[topic, partition]
        log.append(LogRecord(partition, len(log), at_us // 1000, raw))
        return len(log) - 1

    def _list(self, item: int, at_us: int) -> None:
        listed = ev.Item(item_id=item, item_key=f"i{item}", category=self._category[item])
        listed.created_at.CopyFrom(from_us(at_us - 5_000_000))
        offset = self._append(topics.CATALOG.name, 0, at_us, listed.SerializeToString())
        fields = {"item_id": item, "category": listed.category, "created_at": at_us - 5_000_000}
        event = Event("listed", 0, offset * 1024, fields, "catalog/0", offset * 1024)
        self.online.append((at_us // 1000 * 1000, [event]))

    def _events(self, record: ev.EventRecord, origin: str, base: int) -> Iterator[Event]:
        """What a record says to the views, as the pipeline splits it."""
        if record.HasField("impression"):
            shown = record.impression
            at_us, hashed = shown.occurred_at.ToMicroseconds(), event_hash(shown.event_id)
            for place, item in enumerate(shown.item_ids):
                fields = {
                    "user_id": shown.user_id,
                    "item_id": item,
                    "category": self._category[item],
                    "position": place,
                }
                yield Event("shown", at_us, hashed ^ item, fields, origin, base + 1 + place)
        elif record.HasField("action"):
            acted = record.action
            fields = {
                "user_id": acted.user_id, "item_id": acted.item_id,
                "category": self._category[acted.item_id], "action": acted.kind,
                "dwell_s": acted.dwell.ToMicroseconds(),
            }  # fmt: skip
            at_us = acted.occurred_at.ToMicroseconds()
            yield Event("acted", at_us, event_hash(acted.event_id), fields, origin, base)

    def _fold(self, now_us: int) -> None:
        """Everything that is there at a moment."""
        events: list[Event] = []
        while self._folded < len(self.online) and self.online[self._folded][0] + self.lag_us < now_us:
            events += self.online[self._folded][1]
            self._folded += 1
        for view, fold in self._folds:
            taken = events if self.plant is None else [self.plant(view, event) for event in events]
            self.states.update(fold.round(taken).states)

    def write(self, root: Path) -> str:
        """The lake, two flushes a partition; its URI."""
        for (topic, partition), records in self.logs.items():
            writer = PartitionWriter(LakeStore(str(root)), TABLE_OF[topic], partition)
            writer.open()
            half = len(records) // 2
            if half:
                writer.flush(records[:half], 0)
            writer.flush(records[half:], half)
        return str(root)
