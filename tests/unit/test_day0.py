"""Day 0 is logged and encoded exactly as the loop itself would have done it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loadgen import cache, day0_clicks, shift
from loadgen.day0_join import join_session
from loadgen.day0_log import BOUND_US, END_US, WINDOW_US, Day0Log
from loadgen.day0_policy import first_distinct
from loadgen.world import World
from loadgen.world_config import WorldConfig
from rec.events.v1.events_pb2 import EventRecord, SampleRecord
from services.contract.features import encode
from services.contract.join_events import Source
from services.contract.model_state import ModelState
from services.contract.times import to_us
from services.contract.view_events import ACTED, LISTED, SHOWN, event_hash
from services.contract.view_log import log_of
from tests.feature_kit import FEATURES, SHAPE, clicked, states_of

TINY = WorldConfig(items=2_000, users=60, sessions=2, session_s=8.0, day0_rate=40.0)


class Day:
    """One tiny day 0: its records and its samples."""

    def __init__(self) -> None:
        self.world = World(TINY)
        self.log = Day0Log(self.world, FEATURES)
        self.sessions = list(self.log.sessions())
        self.joined = [join_session(WINDOW_US, BOUND_US, s.sources, s.events) for s in self.sessions]
        self.samples = [SampleRecord.FromString(raw).sample for one in self.joined for raw in one.samples]

    def events(self):
        for session in self.sessions:
            for source, raw in zip(session.sources, session.events, strict=True):
                yield Source(source), EventRecord.FromString(raw)


@pytest.fixture(scope="module")
def day() -> Day:
    return Day()


def test_every_item_shown_becomes_exactly_one_sample(day):
    rows = [(s.request_id, i) for s in day.samples for i in np.frombuffer(s.item_ids, "<u8").tolist()]
    assert len(rows) == len(set(rows)) == day.log.counts.impressions > 5_000
    assert sum(one.rows for one in day.joined) == len(rows)
    assert not any(one.rejected for one in day.joined)


def test_the_positive_samples_are_the_clicks(day):
    positives = sum(np.frombuffer(s.labels, "<f4").sum() for s in day.samples)
    assert positives == day.log.counts.clicks > 50


def test_its_view_events_are_those_of_its_records(day):
    """As the lake would see them: one per item shown and per click, with category and place."""
    hidden = day.world.items
    category = dict(zip(hidden.ids.tolist(), hidden.category.tolist(), strict=True))
    wanted = []
    for source, record in day.events():
        if source is Source.IMPRESSIONS and record.HasField("impression"):
            shown = record.impression
            for place, item in enumerate(shown.item_ids):
                hashed = event_hash(shown.event_id) ^ item
                wanted.append((SHOWN.code, shown.occurred_at, hashed, shown.user_id, item, place, 0))
        elif source is Source.ACTIONS and record.HasField("action"):
            done = record.action
            hashed = event_hash(done.event_id)
            wanted.append((ACTED.code, done.occurred_at, hashed, done.user_id, done.item_id, 0, done.kind))
    log = day.log.events.log
    rest = log.take(log.kind != LISTED.code)
    names = ("user_id", "item_id", "position", "action")
    columns = [rest.kind, rest.occurred_us, rest.event_hash, *(rest.field(name) for name in names)]
    found = sorted(zip(*(column.tolist() for column in columns), strict=True))
    assert found == sorted((kind, to_us(at), *others) for kind, at, *others in wanted)
    assert rest.field("category").tolist() == [category[item] for item in rest.field("item_id").tolist()]
    listed = log.take(log.kind == LISTED.code)
    assert dict(zip(listed.field("item_id").tolist(), listed.field("category").tolist(), strict=True)) == {
        item: category[item] for item in hidden.ids[: TINY.items].tolist()
    }


def test_sequences_rise_along_each_origin_with_the_time(day):
    log = day.log.events.log
    for index in range(len(log.origins)):
        of_origin = log.take(np.flatnonzero(log.origin == index))
        turn = np.argsort(of_origin.sequence)
        assert (np.diff(of_origin.sequence[turn]) > 0).all()
        assert (np.diff(of_origin.occurred_us[turn]) >= 0).all()


def test_the_features_of_a_request_are_those_of_states_of_all_that_was_before_it(day):
    events = sorted(day.log.events.log.events(), key=lambda event: event.occurred_us)
    snapshots = [record.snapshot for _, record in day.events() if record.HasField("snapshot")]
    for snapshot in [snapshots[0], *snapshots[5::97], snapshots[-1]]:
        at_us = to_us(snapshot.occurred_at)
        states = states_of(event for event in events if event.occurred_us < at_us)
        ids = np.frombuffer(snapshot.item_ids, "<u8")
        found = encode(FEATURES, states, snapshot.user_id, ids, at_us)
        assert found.user.tobytes() == snapshot.user_features
        assert found.items.tobytes() == snapshot.item_features


def test_co_clicks_pair_a_click_with_the_last_five_of_its_user():
    clicks = [clicked(1, item, 0, at, at) for at, item in enumerate([10, 11, 10, 12, 13, 14, 15, 16])]
    log = log_of([*clicks, clicked(2, 10, 0, 3, 99), clicked(2, 16, 0, 9, 100)], range(10))
    pairs = {(a, b): n for a, b, n in day0_clicks.co_clicks(day0_clicks.clicks(log)).tolist()}
    # 11 behind the first 10 and before the second; 16 comes when 11 is no longer among the last five.
    assert pairs[10, 11] == pairs[11, 10] == 2
    assert (11, 16) not in pairs and pairs[12, 16] == 1
    # Of both users.
    assert pairs[10, 16] == pairs[16, 10] == 2


def test_the_model_forgets_nobody_when_its_day_is_moved():
    state = ModelState(SHAPE, trained_until_us=END_US)
    table = state.tables["item"]
    ids = np.array([3, 4], np.uint64)
    table.last_seen_us[table.add(ids)] = END_US - 5
    table.pending.set(np.array([9], np.uint64), np.array([1], np.uint32), np.array([END_US - 7]))
    shift.model(state, 11)
    assert table.last_seen_us[table.slots(ids)].tolist() == [END_US + 6] * 2
    assert table.pending.items()[2].tolist() == [END_US + 4]
    assert state.trained_until_us == END_US + 11
    assert table.last_seen_us[0] == 0


def test_features_are_those_of_before_the_request(day):
    """The first request met a world without events; later ones know more."""
    names = [column.name for column in FEATURES.candidate_columns]
    earliest = min(day.samples, key=lambda s: to_us(s.occurred_at))
    assert earliest.schema_hash == FEATURES.schema_hash
    matrix = np.frombuffer(earliest.item_features, "<f4").reshape(-1, FEATURES.item_width)
    assert (matrix[:, names.index("item_activity_shown")] == 0).all()
    assert (matrix[:, FEATURES.category_column] > 0).all()
    late = max(day.samples, key=lambda s: to_us(s.occurred_at))
    user = np.frombuffer(late.user_features, "<f4")
    assert user[[column.name for column in FEATURES.request_columns].index("user_activity_shown")] > 0


def test_two_days_of_one_seed_are_the_same_bytes(day):
    again = Day()
    assert [s.events for s in again.sessions] == [s.events for s in day.sessions]
    assert [one.samples for one in again.joined] == [one.samples for one in day.joined]


def test_no_item_is_shown_before_its_birth(day):
    born = dict(zip(day.world.items.ids.tolist(), day.world.items.born_s.tolist(), strict=True))
    for source, record in day.events():
        if source is Source.IMPRESSIONS and record.HasField("impression"):
            at_s = (to_us(record.impression.occurred_at) - END_US) / 1e6
            assert all(born[item] <= at_s for item in record.impression.item_ids)


def test_the_old_system_showed_better_than_random_lists(day):
    assert day.log.counts.clicks / day.log.counts.impressions > 0.02


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.just(12)), elements=st.integers(0, 9)))
def test_lists_are_distinct_and_keep_the_order_drawn(drawn):
    kept = first_distinct(drawn, 6)
    for row, wanted in zip(kept.tolist(), drawn.tolist(), strict=True):
        assert len(set(row)) == 6
        distinct = list(dict.fromkeys(wanted))[:6]
        assert row[: len(distinct)] == distinct
        assert min(row) >= 0


def test_a_cached_folder_is_built_once_and_a_failed_one_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = []

    def build(folder):
        built.append(folder)
        (folder / "file").write_text("whole")

    def fail(folder):
        (folder / "file").write_text("half")
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        cache.folder("day0", "b", fail)
    first = cache.folder("day0", "a", build)
    assert cache.folder("day0", "a", build) == first and len(built) == 1
    assert (first / "file").read_text() == "whole"
    assert not (tmp_path / "recloop" / "day0-b").exists()
    assert [path for path in (tmp_path / "recloop").iterdir() if path.is_dir()] == [first]


def test_only_the_folders_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for number in range(cache.KEPT + 3):
        cache.folder("base", str(number), lambda folder: None)
    assert len(list((tmp_path / "recloop").glob("base-*"))) == cache.KEPT
    assert (tmp_path / "recloop" / f"base-{cache.KEPT + 2}").is_dir()


def test_a_fingerprint_follows_facts_and_source():
    one = cache.fingerprint([1], ["loadgen/world.py"])
    assert one == cache.fingerprint([1], ["loadgen/world.py"])
    assert one != cache.fingerprint([2], ["loadgen/world.py"])
    assert one != cache.fingerprint([1], ["loadgen/world.py", "loadgen/items.py"])
    with pytest.raises(FileNotFoundError):
        cache.fingerprint([1], ["loadgen/nosuch*.py"])
