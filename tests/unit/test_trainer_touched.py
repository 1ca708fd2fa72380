"""Touched ids leave with the acknowledgement only; barriers and expiry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contract.times import MICROS
from tests.trainer_kit import START_US, new_state, random_change
from trainer.barriers import MAX_OPEN, Barriers
from trainer.expiry import Expiry
from trainer.settings import AdmissionSettings
from trainer.touched import Touched, ascending

NOTHING = np.empty(0, np.uint64)


def _ids(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint64)


def test_an_id_leaves_only_after_the_acknowledgement() -> None:
    touched = Touched()
    touched.touch("item", _ids(3, 1), NOTHING)
    assert ascending(touched.begin()["item"].rows).tolist() == [1, 3]
    touched.fail()
    assert touched.rows == 2
    touched.begin()
    touched.ack()
    assert touched.rows == 0 and touched.in_flight == 0


def test_an_id_touched_again_in_flight_goes_out_again() -> None:
    touched = Touched()
    touched.touch("item", _ids(1), NOTHING)
    touched.begin()
    touched.touch("item", _ids(1), NOTHING)
    touched.ack()
    assert touched.begin()["item"].rows == {1}


def test_only_one_delta_is_in_flight() -> None:
    touched = Touched()
    touched.begin()
    with pytest.raises(RuntimeError):
        touched.begin()
    touched.ack()
    for end in (touched.ack, touched.fail):
        with pytest.raises(RuntimeError):
            end()


EVENTS = st.lists(
    st.tuples(st.sampled_from(["touch", "expire", "begin", "ack", "fail"]), st.integers(0, 4)), max_size=40
)


@settings(deadline=None, max_examples=200)
@given(EVENTS)
def test_what_was_published_and_what_waits_tell_the_whole_truth(events: list[tuple[str, int]]) -> None:
    """A reader that gets only acknowledged deltas, and then all that waits, has exactly the live ids."""
    touched = Touched()
    live: dict[int, int] = {}
    published: dict[int, int] = {}
    flying: dict[int, int | None] | None = None

    def content() -> dict[int, int | None]:
        ids = touched.begin()["item"]
        assert not ids.rows & ids.expired
        return {key: live[key] for key in ids.rows} | dict.fromkeys(ids.expired)

    def publish(change: dict[int, int | None]) -> None:
        for key, value in change.items():
            if value is None:
                published.pop(key, None)
            else:
                published[key] = value

    for version, (kind, key) in enumerate(events):
        if kind == "touch":
            live[key] = version
            touched.touch("item", _ids(key), NOTHING)
        elif kind == "expire":
            live.pop(key, None)
            touched.expire("item", _ids(key), NOTHING)
        elif kind == "begin" and flying is None:
            flying = content()
        elif kind == "ack" and flying is not None:
            publish(flying)
            touched.ack()
            flying = None
        elif kind == "fail" and flying is not None:
            touched.fail()
            flying = None
    if flying is not None:
        touched.fail()
    publish(content())
    assert published == live


def test_a_barrier_is_named_when_it_has_come_from_every_partition() -> None:
    barriers = Barriers(frozenset({0, 1}), {})
    barriers.seen("b", 0)
    barriers.seen("b", 0)
    assert barriers.complete == ()
    barriers.seen("b", 1)
    assert barriers.complete == ("b",)
    assert barriers.open == {}
    barriers.named(("b",))
    assert barriers.complete == ()


def test_a_barrier_half_read_before_a_restart_is_completed_after_it() -> None:
    before = Barriers(frozenset({0, 1}), {})
    before.seen("b", 0)
    after = Barriers(frozenset({0, 1}), before.open)
    after.seen("b", 1)
    assert after.complete == ("b",)


def test_open_barriers_are_bounded_and_the_forgotten_are_counted() -> None:
    barriers = Barriers(frozenset({0, 1}), {})
    for n in range(MAX_OPEN + 3):
        barriers.seen(f"b{n}", 0)
    assert len(barriers.open) == MAX_OPEN
    assert barriers.forgotten == 3


def _aged_state(ages_s: list[int]) -> tuple[object, np.ndarray]:
    state = new_state()
    ids = np.arange(1, len(ages_s) + 1, dtype=np.uint64)
    state.tables["item"].apply(random_change(np.random.default_rng(0), "item", ids.tolist()))
    table = state.tables["item"]
    table.last_seen_us[table.slots(ids)] = START_US - np.array(ages_s, np.int64) * MICROS
    state.trained_until_us = START_US
    return state, ids


def test_ids_not_seen_for_the_time_to_live_leave_with_a_tombstone() -> None:
    state, ids = _aged_state([0, 50, 101, 500])
    touched, expiry = Touched(), Expiry(AdmissionSettings(ttl_s=100, pending_ttl_s=100))
    touched.touch("item", ids, NOTHING)
    expiry.sweep(state, touched)
    assert len(state.tables["item"]) == 4, "the first look only starts the clock"
    state.trained_until_us += 7 * MICROS
    assert expiry.sweep(state, touched) == 2
    change = touched.begin()["item"]
    assert (change.rows, change.expired) == ({1, 2}, {3, 4})
    assert state.tables["item"].slots(ids).tolist()[2:] == [0, 0]


def test_one_sweep_takes_the_oldest_and_the_next_goes_on() -> None:
    state, _ = _aged_state([101 + n for n in range(10)])
    touched, expiry = Touched(), Expiry(AdmissionSettings(ttl_s=100, pending_ttl_s=100, sweep_rows=4))
    expiry.sweep(state, touched)
    state.trained_until_us += 7 * MICROS
    assert [expiry.sweep(state, touched) for _ in range(4)] == [4, 4, 2, 0]
    assert touched.begin()["item"].expired == set(range(1, 11))


def test_pending_ids_are_forgotten_as_well() -> None:
    state = new_state()
    state.tables["user"].pending.set(_ids(5), np.array([1], np.uint32), np.array([START_US], np.int64))
    state.trained_until_us = START_US
    touched, expiry = Touched(), Expiry(AdmissionSettings(pending_ttl_s=10))
    expiry.sweep(state, touched)
    state.trained_until_us += 11 * MICROS
    assert expiry.sweep(state, touched) == 1
    assert len(state.tables["user"].pending) == 0
    assert touched.begin()["user"].pending == {5}
