"""Random feature views, random logs on their edges, and the three interpreters side by side."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import (
    FIELD_READS,
    READS,
    Aggregate,
    Count,
    Decayed,
    Distinct,
    Elapsed,
    Feature,
    LastK,
    Max,
    Mean,
    Min,
    Ratio,
    Sum,
)
from services.contract.view_events import ACTED, SHOWN, Condition, Event, Select
from services.contract.view_fold import Change, OriginMarks, StateKey, ViewFold
from services.contract.view_log import Labels
from services.contract.view_plan import plan_of
from services.contract.view_read import read, records_of
from services.contract.view_replay import Answer, Ask

HOP_US = 1_000
ORIGINS = ("a/0", "a/1", "b/0")
Logged = tuple[Event, int]

# On hop edges, and one beside them.
_INSIDE = (0, 0, 1, 999)
_IDS = (1, 2**64 - 1)
_NUMBERS = (0, 1, 2, -3, 7_500_000)
SELECTS = st.sampled_from(
    [
        Select("shown"),
        Select("acted"),
        Select("acted", (Condition("action", "eq", 1),)),
        Select("acted", (Condition("action", "in", (1, 2)), Condition("dwell_s", "ge", 0))),
        Select("shown", (Condition("item_id", "ne", 1),)),
    ]
)
_NUMBER_OF = {"shown": "position", "acted": "dwell_s"}


@st.composite
def aggregates(draw: st.DrawFn) -> Aggregate:
    """Any aggregate over shown and acted."""
    events, hits = draw(SELECTS), draw(SELECTS)
    number = _NUMBER_OF[events.kind]
    fields = draw(st.sampled_from([("item_id", number), ("category", "item_id", number)]))
    read = draw(st.sampled_from([read for read in READS if read != "value_age"]))
    field = ""
    if read in FIELD_READS:
        field = number if read == "value" else draw(st.sampled_from(fields[:-1]))
    return draw(
        st.sampled_from(
            [
                Count(events),
                Sum(events, number),
                Min(events, number),
                Max(events, number),
                Mean(events, number),
                Ratio(events, hits, 0.1, 8.0),
                Ratio(events, hits, 0.25, 3.0, "lift"),
                Decayed(events, draw(st.sampled_from([700, 3_000]))),
                Distinct(events, draw(st.sampled_from(["item_id", "category", number])), 5),
                Elapsed(events, draw(st.sampled_from(["first", "last"]))),
                *[LastK(events, fields, draw(st.integers(1, 3)), read, field)] * 3,
            ]
        )
    )


@st.composite
def features(draw: st.DrawFn, name: str) -> Feature:
    """Any feature; the window fits HOP_US."""
    aggregate = draw(aggregates())
    window = draw(st.integers(1 if isinstance(aggregate, Decayed) else 0, 5)) * HOP_US
    lift = isinstance(aggregate, Ratio) and aggregate.read == "lift"
    scale = draw(st.sampled_from(["linear", "linear" if lift else "log1p"]))
    limit = draw(st.sampled_from([None, 3.0]))
    return Feature(name, aggregate, window, draw(st.sampled_from([0.0, -0.3])), scale, 4.0, limit)


@st.composite
def views(draw: st.DrawFn, kinds: Sequence[str] = ("streaming", "streaming", "batch")) -> FeatureView:
    """Any valid view over shown and acted."""
    columns = [draw(features(f"f{index}")) for index in range(draw(st.integers(1, 4)))]
    return FeatureView(
        "random",
        1,
        draw(st.sampled_from([("user_id",), ("item_id",), ("user_id", "category"), ()])),
        ("shown", "acted"),
        tuple(columns),
        HOP_US,
        draw(st.sampled_from([(), (Condition("category", "ne", 2),)])),
        kind=draw(st.sampled_from(list(kinds))),
        slack_hops=draw(st.integers(1, 3)),
    )


Case = tuple[list[Logged], list[Ask]]


def cases() -> st.SearchStrategy[Case]:
    """A log with its append times (rising, so that the list is the log), and rows that ask near its events.

    Event times run along the log in disorder, on hop edges and beside them, with ties and events that came
    twice; sequences rise along each origin. Only size and seed are drawn: Hypothesis prefers few and small
    values, with which hardly a row would find an event.
    """
    return st.builds(case_from, st.sampled_from([4, 60, 60, 30, 15, 1, 0]), st.integers(0, 2**32 - 1))


def logs() -> st.SearchStrategy[list[Logged]]:
    """The logs of cases."""
    return cases().map(lambda case: case[0])


def case_from(size: int, seed: int) -> Case:
    """The log and the rows that a seed stands for."""
    rng = random.Random(seed)
    log: list[Logged] = []
    next_sequence = dict.fromkeys(ORIGINS, 0)
    appended = 0
    for index in range(size):
        kind = rng.choice((SHOWN, ACTED))
        values = _who(rng) | {"action": rng.randrange(3)}
        fields = {f.name: values.get(f.name, rng.choice(_NUMBERS)) for f in kind.fields}
        origin = rng.choice(ORIGINS)
        next_sequence[origin] += rng.randint(1, 3)
        appended += rng.choice((0, 1, 700))
        hop = max(0, 11 * index // size + rng.choice((-3, -1, 0, 0, 0, 1, 3)))
        at_us = hop * HOP_US + rng.choice(_INSIDE)
        event = Event(kind.name, at_us, rng.randrange(4), fields, origin, next_sequence[origin])
        if log and rng.random() < 0.1:
            # A client tried again and got another place in the log.
            event = replace(rng.choice(log)[0], origin=origin, sequence=next_sequence[origin])
        log.append((event, appended))
    return log, [_ask(rng, log) for _ in range(rng.randint(1, 6))]


def _who(rng: random.Random) -> dict[str, int]:
    return {
        "user_id": rng.choice((_IDS[0], _IDS[0], _IDS[1])),
        "item_id": rng.choice(_IDS),
        "category": rng.choice((0, 0, 1, 2)),
    }


def _ask(rng: random.Random, log: list[Logged]) -> Ask:
    if not log or rng.random() < 0.1:
        return Ask(_who(rng), rng.randrange(14) * HOP_US + rng.choice(_INSIDE), rng.choice((0, 1, 30_000)))
    at = rng.randrange(len(log))
    event, appended_us = log[at]
    near = log[min(max(at + rng.randint(-4, 4), 0), len(log) - 1)][0]
    fields = _who(rng) if rng.random() < 0.3 else {name: event.fields[name] for name in _who(rng)}
    at_us = near.occurred_us + rng.choice((-HOP_US, -1, 0, 0, 1, 1, HOP_US))
    return Ask(fields, at_us, appended_us + rng.choice((0, 1, 700, 701, 1_400, 3_000)))


def labels_of(rows: Sequence[Ask]) -> Labels:
    """The same rows as columns."""
    return Labels(
        np.array([row.at_us for row in rows], np.int64),
        {
            "user_id": np.array([row.fields["user_id"] for row in rows], np.uint64),
            "item_id": np.array([row.fields["item_id"] for row in rows], np.uint64),
            "category": np.array([row.fields["category"] for row in rows], np.int64),
        },
        np.array([row.wall_us for row in rows], np.int64),
    )


@dataclass
class Store:
    """What a fold leaves behind: states and marks, changed together."""

    states: dict[StateKey, bytes]
    marks: dict[str, int]

    @classmethod
    def empty(cls) -> Store:
        """Before the first event."""
        return cls({}, {})

    def fold(
        self, view: FeatureView, events: Sequence[Event], owns: Callable[[bytes], bool] = lambda entity: True
    ) -> Change:
        """One round of a process that knows only what is stored, written at once."""
        change = ViewFold([view], OriginMarks(self.marks), self.states.get, owns).round(events)
        self.states.update(change.states)
        self.marks = change.marks
        return change

    def ask(self, view: FeatureView, row: Ask) -> Answer:
        """What the stored state says to one row."""
        entity = b"".join(row.fields[name].to_bytes(8, "little") for name in view.key)
        value = self.states.get((view.definition_hash, entity))
        labels = labels_of([row])
        found = read(view, records_of(plan_of(view), [value]), labels.at_us, labels.fields)
        return Answer(tuple(found.values[0].tolist()), bool(found.missing[0]))


def bits(answers: Sequence[Answer]) -> list[tuple[list[str], bool]]:
    """Values as hexadecimal, so that -0.0 is not 0.0."""
    return [([value.hex() for value in answer.values], answer.missing) for answer in answers]


def there(view: FeatureView, log: Sequence[Logged], row: Ask, mode: str, lag_us: int) -> list[Event]:
    """The events that a state holds when the row asks: feature_view's S, before key and filter."""
    if mode == "ideal":
        return [event for event, _ in log if event.occurred_us < row.at_us]
    return [event for event, appended_us in log if appended_us + lag_us < row.wall_us]
