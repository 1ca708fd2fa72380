"""Online fold = as-of join = replay, bit for bit, on random views and logs."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.view_logs import Store, bits, cases, labels_of, logs, there, views

from services.contract.feature_view import FeatureView, view_from
from services.contract.view_asof import asof
from services.contract.view_codec import canonical
from services.contract.view_events import Event
from services.contract.view_init import below, cut_at, initial_states
from services.contract.view_log import EventLog, log_of
from services.contract.view_replay import Answer, replay

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MODES = st.sampled_from(["ideal", "as_served"])
LAGS = st.sampled_from([0, 1, 700])
RNGS = st.integers(0, 2**32 - 1).map(random.Random)


def columns(log) -> EventLog:
    return log_of([event for event, _ in log], [appended for _, appended in log])


@SETTINGS
@given(views(), cases(), MODES, LAGS)
def test_the_asof_join_says_what_the_replay_says(view, case, mode, lag_us):
    log, rows = case
    found = asof(view, columns(log), labels_of(rows), mode, lag_us)
    joined = [Answer(tuple(v.tolist()), bool(m)) for v, m in zip(found.values, found.missing, strict=True)]
    assert bits(joined) == bits([replay(view, log, row, mode, lag_us) for row in rows])


@SETTINGS
@given(views(), cases(), MODES, LAGS, RNGS)
def test_a_state_says_what_the_replay_says(view, case, mode, lag_us, rng):
    log, rows = case
    answers = []
    for row in rows:
        store = Store.empty()
        events = there(view, log, row, mode, lag_us)
        for event in disordered(events, rng):
            store.fold(view, [event])
        answers.append(store.ask(view, row))
    assert bits(answers) == bits([replay(view, log, row, mode, lag_us) for row in rows])


def disordered(events: list[Event], rng: random.Random) -> list[Event]:
    """Another interleaving of the origins, with redeliveries: each origin rewinds now and then."""
    waiting = {origin: [e for e in events if e.origin == origin] for origin in {e.origin for e in events}}
    found, place = [], dict.fromkeys(waiting, 0)
    while open_ := [origin for origin, queue in waiting.items() if place[origin] < len(queue)]:
        origin = rng.choice(open_)
        found.append(waiting[origin][place[origin]])
        place[origin] += 1
        if rng.random() < 0.2:
            place[origin] = rng.randrange(place[origin])
    return found


@SETTINGS
@given(views(), logs(), RNGS)
def test_the_order_of_origins_and_redeliveries_leave_the_same_bytes(view, log, rng):
    plain, other = Store.empty(), Store.empty()
    events = [event for event, _ in log]
    plain.fold(view, events)
    other.fold(view, disordered(events, rng))
    assert other.states == plain.states
    assert other.marks == plain.marks


@SETTINGS
@given(views(), logs(), st.lists(st.integers(0, 60), max_size=4), RNGS)
def test_a_crash_at_any_event_leaves_the_same_bytes(view, log, crashes, rng):
    events = [event for event, _ in log]
    plain, store = Store.empty(), Store.empty()
    plain.fold(view, events)
    read_from = 0
    for crash in sorted(crashes):
        store.fold(view, events[read_from:crash])
        # A round that was folded and never written is forgotten; what is read again begins anywhere before.
        read_from = rng.randint(0, min(crash, len(events)))
    store.fold(view, events[read_from:])
    assert store.states == plain.states
    assert store.marks == plain.marks


@SETTINGS
@given(views(), logs())
def test_partitions_that_own_entities_hold_together_what_one_would(view, log):
    events = [event for event, _ in log]
    whole, parts = Store.empty(), [Store.empty(), Store.empty()]
    whole.fold(view, events)
    for index, part in enumerate(parts):
        part.fold(view, events, lambda entity, index=index: sum(entity) % 2 == index)
    assert not parts[0].states.keys() & parts[1].states.keys()
    assert parts[0].states | parts[1].states == whole.states


@SETTINGS
@given(views(), logs(), st.integers(-1, 16_000))
def test_states_from_history_at_any_time_and_the_stream_are_the_whole_stream(view, log, until_us):
    cut = cut_at(columns(log), until_us)
    whole, store = Store.empty(), started(view, log, cut)
    events = [event for event, _ in log]
    whole.fold(view, events)
    # The stream begins at the beginning of the log: what history holds is below the marks.
    store.fold(view, events)
    assert store.states == whole.states
    assert store.marks == whole.marks


@SETTINGS
@given(views(), logs(), st.tuples(*(st.integers(0, 60) for _ in range(3))))
def test_states_from_history_below_any_offsets_are_the_folded_bytes(view, log, ends):
    cut = dict(zip(("a/0", "a/1", "b/0"), ends, strict=True))
    folded = Store.empty()
    history = [event for event, _ in log if event.sequence < cut[event.origin]]
    folded.fold(view, history)
    assert started(view, log, cut).states == folded.states
    assert below(columns(log), cut).sum() == len(history)


def started(view: FeatureView, log, cut: dict[str, int]) -> Store:
    found = initial_states(view, columns(log), cut)
    return Store({(view.definition_hash, entity): state for entity, state in found.items()}, found.marks)


@SETTINGS
@given(views())
def test_a_view_survives_its_text(view):
    assert view_from(canonical(view)) == view
    assert view_from(canonical(view)).definition_hash == view.definition_hash
