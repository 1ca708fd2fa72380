"""Day 0 as the loop would have logged it: the contract's messages, its encoding.

Time order: a request's snapshot, its impression SHOW_US later, its clicks when they happen. A session is
first simulated, then encoded: the features of a request are those of the log before it, by the as-of join.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.arrivals import SHOWN, arrival_times
from loadgen.day0_events import Day0Events
from loadgen.day0_policy import LoggingPolicy
from loadgen.exposures import Exposures
from loadgen.world import World, click_delays_s, examination
from loadgen.world_random import Stream, generator
from rec.events.v1.events_pb2 import (
    ACTION_KIND_CLICK,
    Action,
    EventRecord,
    FeatureSnapshot,
    Heartbeat,
    Impression,
)
from services.contract.columns import F32, U64, encode
from services.contract.features_asof import encode_asof
from services.contract.ids import action_event_id, impression_event_id, snapshot_event_id
from services.contract.join_events import Source
from services.contract.times import MICROS, from_us
from services.contract.view_log import Labels
from services.contract.view_registry import FeatureSet

# The end of day 0 in the cached files: 2026-01-01 00:00 UTC. A seed shifts everything to the present.
END_US = 1_767_225_600 * MICROS
SHOW_US = 50_000
CHUNK = 32
WINDOW_US = 20 * MICROS
BOUND_US = 2 * MICROS
ARM = "day0"
# The click rate that the first scores start from, and how many impressions it counts as.
PRIOR, PRIOR_IMPRESSIONS = 0.1, 100


@dataclass
class Day0Counts:
    """What came out, by name."""

    requests: int = 0
    impressions: int = 0
    clicks: int = 0


@dataclass(frozen=True)
class Records:
    """The log of one session in time order: which input each record belongs to, and its bytes."""

    sources: list[int]
    events: list[bytes]

    def add(self, source: Source, record: EventRecord) -> None:
        """Appends one record."""
        self.sources.append(int(source))
        self.events.append(record.SerializeToString())


def event_us(t_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Event time of world times."""
    return END_US + np.round(np.asarray(t_s) * MICROS).astype(np.int64)


@dataclass(frozen=True)
class Shown:
    """r requests of a session in time order, and what came of them: indices of users [r] and items
    [r, SHOWN], ``click_us`` [r, SHOWN] (0 = not clicked)."""

    at_us: NDArray[np.int64]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    click_us: NDArray[np.int64]


class Day0Log:
    """Runs day 0; ``sessions`` yields its log, afterwards ``events`` has all that feature views see of it."""

    def __init__(self, world: World, feature_set: FeatureSet) -> None:
        config = world.config
        self.world = world
        self._feature_set = feature_set
        self._policy = LoggingPolicy(world)
        self._exposures = Exposures(config.users)
        self.events = Day0Events(world, config.items, event_us(world.items.born_s[: config.items]))
        self.counts = Day0Counts()
        self._exam = examination(np.arange(SHOWN))

    def sessions(self) -> Iterator[Records]:
        """The log, one session at a time; each ends with all windows closed by heartbeats."""
        config = self.world.config
        for session in range(config.sessions):
            rng = generator(config.seed, Stream.LOGGING_POLICY, session)
            start_s = float(config.session_start_s(np.array(session)))
            t_s = start_s + arrival_times(rng, config.day0_rate, config.session_s)
            users = self.world.users.choose(t_s, rng.random(len(t_s)), np.ones(len(t_s)))
            chunks = [
                self._chunk(rng, users[begin : begin + CHUNK], t_s[begin : begin + CHUNK])
                for begin in range(0, len(t_s), CHUNK)
            ]
            records = self._logged(_joined(chunks))
            self._close_windows(start_s + config.session_s, records)
            yield records

    def _chunk(self, rng: np.random.Generator, users: NDArray[np.int64], t_s: NDArray[np.float64]) -> Shown:
        world, at_us = self.world, event_us(t_s)
        shown = self._policy.choose(rng, users, t_s, world.items.born_until(float(t_s[0])))
        exposures = self._exposures.count(users, shown)
        rows = np.repeat(np.arange(len(users)), SHOWN)
        p = world.true_p(users[rows], shown.ravel(), t_s[rows], exposures.ravel()).reshape(shown.shape)
        self._exposures.add(users, shown)
        clicked = rng.random(shown.shape) < p * self._exam
        delay_s = click_delays_s(rng.random(shown.shape).astype(np.float32), WINDOW_US / MICROS)
        click_us = at_us[:, None] + SHOW_US + (delay_s * MICROS).astype(np.int64)
        return Shown(at_us, users, shown, np.where(clicked, click_us, 0))

    def _logged(self, shown: Shown) -> Records:
        """The records of a session in time order, encoded."""
        world, first = self.world, self.counts.requests
        request_ids = [f"day0-{first + row:08d}" for row in range(len(shown.users))]
        self.events.add(shown, request_ids, SHOW_US)
        user_features, item_features = encode_asof(
            self._feature_set,
            self.events.log,
            Labels(shown.at_us, {"user_id": world.users.ids[shown.users]}),
            np.repeat(np.arange(len(shown.users)), SHOWN),
            world.items.ids[shown.items.ravel()],
        )
        item_features = item_features.reshape(*shown.items.shape, -1)
        out = Records([], [])
        # (event time, row, place): clicks that have not happened yet.
        pending: list[tuple[int, int, int]] = []
        for row, (request_id, at_us) in enumerate(zip(request_ids, shown.at_us.tolist(), strict=True)):
            self._click_until(at_us, pending, shown, request_ids, out)
            snapshot = self._snapshot(request_id, shown, row)
            snapshot.user_features = user_features[row].tobytes()
            snapshot.item_features = item_features[row].tobytes()
            out.add(Source.SNAPSHOTS, EventRecord(snapshot=snapshot))
            impression = Impression(
                event_id=impression_event_id(request_id),
                request_id=request_id,
                occurred_at=from_us(at_us + SHOW_US),
                user_id=snapshot.user_id,
                item_ids=world.items.ids[shown.items[row]].tolist(),
            )
            out.add(Source.IMPRESSIONS, EventRecord(impression=impression))
            self.counts.requests += 1
            self.counts.impressions += SHOWN
            for place in np.flatnonzero(shown.click_us[row]).tolist():
                heapq.heappush(pending, (int(shown.click_us[row, place]), row, place))
        self._click_until(np.iinfo(np.int64).max, pending, shown, request_ids, out)
        return out

    def _snapshot(self, request_id: str, shown: Shown, row: int) -> FeatureSnapshot:
        moment, counts = from_us(int(shown.at_us[row])), self.counts
        rate = (counts.clicks + PRIOR_IMPRESSIONS * PRIOR) / (counts.impressions + PRIOR_IMPRESSIONS)
        return FeatureSnapshot(
            event_id=snapshot_event_id(request_id),
            request_id=request_id,
            occurred_at=moment,
            user_id=int(self.world.users.ids[shown.users[row]]),
            scored_at=moment,
            schema_hash=self._feature_set.schema_hash,
            arm=ARM,
            item_ids=encode(self.world.items.ids[shown.items[row]], U64),
            # No model scored this: the click rate so far, the same for all.
            scores=encode(np.full(SHOWN, rate), F32),
        )

    def _click_until(
        self,
        until_us: int,
        pending: list[tuple[int, int, int]],
        shown: Shown,
        request_ids: list[str],
        out: Records,
    ) -> None:
        while pending and pending[0][0] < until_us:
            at_us, row, place = heapq.heappop(pending)
            item_id = int(self.world.items.ids[shown.items[row, place]])
            action = Action(
                event_id=action_event_id(request_ids[row], item_id, ACTION_KIND_CLICK),
                request_id=request_ids[row],
                occurred_at=from_us(at_us),
                user_id=int(self.world.users.ids[shown.users[row]]),
                item_id=item_id,
                kind=ACTION_KIND_CLICK,
            )
            out.add(Source.ACTIONS, EventRecord(action=action))
            self.counts.clicks += 1

    def _close_windows(self, end_s: float, out: Records) -> None:
        end_us = int(event_us(np.array(end_s))) + 2 * (WINDOW_US + BOUND_US)
        beat = EventRecord(heartbeat=Heartbeat(writer="day0", occurred_at=from_us(end_us)))
        for source in Source:
            out.add(source, beat)


def _joined(chunks: list[Shown]) -> Shown:
    names = ("at_us", "users", "items", "click_us")
    return Shown(*(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names))
