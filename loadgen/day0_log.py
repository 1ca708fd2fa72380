"""Day 0 as the loop would have logged it: the contract's messages, its fold, its encoding.

Time order: a request's snapshot, its impression SHOW_US later, its clicks when they happen. The features of a
request are those of the state as of the beginning of its chunk (CHUNK requests, half a second), a fold that
lags as the real one does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.arrivals import SHOWN, arrival_times
from loadgen.day0_policy import LoggingPolicy
from loadgen.day0_state import Day0State
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
from services.contract import features
from services.contract.columns import F32, U64, encode
from services.contract.ids import action_event_id, impression_event_id, snapshot_event_id
from services.contract.join_events import Source
from services.contract.times import MICROS, from_us

# The end of day 0 in the cached files: 2026-01-01 00:00 UTC. A seed shifts everything to the present.
END_US = 1_767_225_600 * MICROS
SHOW_US = 50_000
CHUNK = 32
WINDOW_US = 20 * MICROS
BOUND_US = 2 * MICROS
ARM = "day0"


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


class Day0Log:
    """Runs day 0; ``sessions`` yields its log, afterwards ``state`` is what the fold holds."""

    def __init__(self, world: World) -> None:
        config = world.config
        self._world = world
        self._policy = LoggingPolicy(world)
        self._exposures = Exposures(config.users)
        created_us = event_us(world.items.born_s[: config.items])
        self.state = Day0State(world.items, config.items, config.users, created_us)
        self.counts = Day0Counts()
        # (event time, request number, user, item, request id): clicks that have not happened yet.
        self._pending: list[tuple[int, int, int, int, str]] = []
        self._exam = examination(np.arange(SHOWN))

    def sessions(self) -> Iterator[Records]:
        """The log, one session at a time; each ends with all windows closed by heartbeats."""
        config = self._world.config
        for session in range(config.sessions):
            rng = generator(config.seed, Stream.LOGGING_POLICY, session)
            start_s = float(config.session_start_s(np.array(session)))
            t_s = start_s + arrival_times(rng, config.day0_rate, config.session_s)
            users = self._world.users.choose(t_s, rng.random(len(t_s)), np.ones(len(t_s)))
            records = Records([], [])
            for begin in range(0, len(t_s), CHUNK):
                self._chunk(rng, users[begin : begin + CHUNK], t_s[begin : begin + CHUNK], records)
            self._click_until(np.iinfo(np.int64).max, records)
            self._close_windows(start_s + config.session_s, records)
            yield records

    def _chunk(
        self, rng: np.random.Generator, users: NDArray[np.int64], t_s: NDArray[np.float64], out: Records
    ) -> None:
        world, at_us = self._world, event_us(t_s)
        self._click_until(int(at_us[0]), out)
        shown = self._policy.choose(rng, users, t_s, world.items.born_until(float(t_s[0])))
        user_features, item_features = self.state.encode(users, shown, at_us)
        exposures = self._exposures.count(users, shown)
        rows = np.repeat(np.arange(len(users)), SHOWN)
        p = world.true_p(users[rows], shown.ravel(), t_s[rows], exposures.ravel()).reshape(shown.shape)
        self._exposures.add(users, shown)
        clicked = rng.random(shown.shape) < p * self._exam
        delay_s = click_delays_s(rng.random(shown.shape).astype(np.float32), WINDOW_US / MICROS)
        item_features = item_features.reshape(len(users), SHOWN, features.ITEM_WIDTH)
        score = features.prior_rate(self.state.impressions, self.state.clicks)
        for row, (user, now_us) in enumerate(zip(users.tolist(), at_us.tolist(), strict=True)):
            number = self.counts.requests
            self.counts.requests += 1
            request_id = f"day0-{number:08d}"
            items = shown[row]
            snapshot = self._snapshot(request_id, user, now_us, items, score)
            snapshot.user_features = user_features[row].tobytes()
            snapshot.item_features = item_features[row].tobytes()
            out.add(Source.SNAPSHOTS, EventRecord(snapshot=snapshot))
            impression = Impression(
                event_id=impression_event_id(request_id),
                request_id=request_id,
                occurred_at=from_us(now_us + SHOW_US),
                user_id=snapshot.user_id,
                item_ids=world.items.ids[items].tolist(),
            )
            out.add(Source.IMPRESSIONS, EventRecord(impression=impression))
            self.state.shown(user, items.tolist(), now_us + SHOW_US)
            self.counts.impressions += SHOWN
            for place in np.flatnonzero(clicked[row]).tolist():
                click_us = now_us + SHOW_US + int(delay_s[row, place] * MICROS)
                heapq.heappush(self._pending, (click_us, number, user, int(items[place]), request_id))

    def _snapshot(
        self, request_id: str, user: int, at_us: int, items: NDArray[np.int64], score: float
    ) -> FeatureSnapshot:
        moment = from_us(at_us)
        return FeatureSnapshot(
            event_id=snapshot_event_id(request_id),
            request_id=request_id,
            occurred_at=moment,
            user_id=int(self._world.users.ids[user]),
            scored_at=moment,
            schema_hash=features.SCHEMA_HASH,
            arm=ARM,
            item_ids=encode(self._world.items.ids[items], U64),
            # No model scored this: the click rate so far, the same for all.
            scores=encode(np.full(len(items), score), F32),
        )

    def _click_until(self, until_us: int, out: Records) -> None:
        while self._pending and self._pending[0][0] < until_us:
            at_us, _, user, item, request_id = heapq.heappop(self._pending)
            item_id = int(self._world.items.ids[item])
            action = Action(
                event_id=action_event_id(request_id, item_id, ACTION_KIND_CLICK),
                request_id=request_id,
                occurred_at=from_us(at_us),
                user_id=int(self._world.users.ids[user]),
                item_id=item_id,
                kind=ACTION_KIND_CLICK,
            )
            out.add(Source.ACTIONS, EventRecord(action=action))
            self.state.click(user, item, at_us, request_id)
            self.counts.clicks += 1

    def _close_windows(self, end_s: float, out: Records) -> None:
        end_us = int(event_us(np.array(end_s))) + 2 * (WINDOW_US + BOUND_US)
        beat = EventRecord(heartbeat=Heartbeat(writer="day0", occurred_at=from_us(end_us)))
        for source in Source:
            out.add(source, beat)
