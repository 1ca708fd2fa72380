"""The lake's rows: what each kind of record becomes."""

from __future__ import annotations

import struct

import pytest
from oracles.join_logs import IMP, A, S, action, barrier, heartbeat, impression, one_sample, snapshot

from rec.events.v1 import events_pb2 as ev
from services.contract import times, topics
from services.contract.join_events import Malformed, decode
from services.contract.lake_rows import (
    MAX_ITEMS,
    SCHEMAS,
    TABLES,
    TOPIC_OF,
    BadRecord,
    LogRecord,
    to_rows,
    to_table,
)

NOT_EVENTS = {"event_id", "request_id", "user_id"}


def rows_of(table: str, *values: bytes | None) -> list[dict]:
    records = [LogRecord(2, 40 + at, 1000 + at, value) for at, value in enumerate(values)]
    found = to_table(table, records)
    found.validate(full=True)
    assert found.schema.equals(SCHEMAS[table])
    return found.to_pylist()


def sample_record(**changes) -> bytes:
    message = ev.TrainingSample()
    message.CopyFrom(one_sample())
    for field, value in changes.items():
        setattr(message, field, value)
    return ev.SampleRecord(sample=message).SerializeToString()


def test_every_table_has_its_topic():
    assert tuple(SCHEMAS) == tuple(TOPIC_OF) == TABLES
    assert {topic.name for topic in topics.ALL if "lake" in topic.readers} == set(TOPIC_OF.values())


def test_a_snapshot_keeps_its_bytes_and_says_which_model_scored_it():
    (row,) = rows_of("snapshots", snapshot("r", 100, [7, 8]))
    assert row == {
        "partition": 2, "offset": 40, "appended_ms": 1000, "record": "event", "event_id": "r:scored",
        "request_id": "r", "occurred_us": 100, "user_id": 9, "barrier_id": None, "detail": None,
        "items": None, "scored_us": 107, "schema_hash": 77, "generation": 1, "policy": "online",
        "sequence": 5, "arm": "online", "item_ids": struct.pack("<2Q", 7, 8),
        "scores": struct.pack("<2f", 0.07, 0.08), "user_features": struct.pack("<2f", 100, 9),
        "item_features": struct.pack("<4f", 7, 100, 8, 100),
    }  # fmt: skip


def test_a_listing_keeps_its_fields_and_what_is_none_says_so():
    item = ev.Item(item_id=2**63 + 1, item_key="i", category=63)
    unborn = ev.Item(item_id=4).SerializeToString()
    times.set_us(item.created_at, 1_000_001)
    records = [
        LogRecord(0, at, 9, raw) for at, raw in enumerate([item.SerializeToString(), None, b"\xff", unborn])
    ]
    rows, bad = to_rows("items", records)
    assert bad == []
    assert rows["record"].to_pylist() == ["event", "removed", "malformed", "event"]
    assert rows.slice(0, 1).to_pylist() == [
        {
            "partition": 0, "offset": 0, "appended_ms": 9, "record": "event", "detail": None,
            "item_id": 2**63 + 1, "item_key": "i", "category": 63, "created_us": 1_000_001,
        }
    ]  # fmt: skip
    assert rows["created_us"].to_pylist() == [1_000_001, None, None, None]


def test_impressions_and_actions_keep_their_fields():
    (shown,) = rows_of("impressions", impression("r", 5, [2**64 - 1, 3], positions=[4, 9], unscored=True))
    assert (shown["item_ids"], shown["positions"], shown["unscored"]) == ([2**64 - 1, 3], [4, 9], True)
    message = ev.EventRecord.FromString(action("r", 6, 3, kind=ev.ACTION_KIND_LIKE))
    message.action.dwell.seconds, message.action.dwell.nanos = 2, 5000
    liked, plain = rows_of("actions", message.SerializeToString(), action("r", 6, 3))
    assert (liked["item_id"], liked["kind"], liked["dwell_us"]) == (3, ev.ACTION_KIND_LIKE, 2_000_005)
    assert plain["dwell_us"] is None


def test_what_was_not_set_is_null_and_not_zero():
    message = ev.EventRecord.FromString(snapshot("r", 100))
    message.snapshot.ClearField("model")
    message.snapshot.ClearField("scored_at")
    (row,) = rows_of("snapshots", message.SerializeToString())
    assert [row[name] for name in ("generation", "policy", "sequence", "scored_us")] == [None] * 4


@pytest.mark.parametrize("table", ["snapshots", "impressions", "actions"])
def test_heartbeats_and_barriers_are_rows_that_only_move_the_clock(table):
    beat, mark = rows_of(table, heartbeat(70), barrier("b1", 80))
    assert (beat["record"], beat["occurred_us"], beat["barrier_id"]) == ("heartbeat", 70, None)
    assert (mark["record"], mark["occurred_us"], mark["barrier_id"]) == ("barrier", 80, "b1")
    rest = set(SCHEMAS[table].names) - {
        "partition",
        "offset",
        "appended_ms",
        "record",
        "occurred_us",
        "barrier_id",
    }
    assert {beat[name] for name in rest} == {mark[name] for name in rest} == {None}


@pytest.mark.parametrize(
    ("table", "source", "raw"),
    [
        ("snapshots", S, b"\xff"),
        ("snapshots", S, b""),
        ("snapshots", S, impression("r", 1, [1, 2, 3, 4])),
        ("snapshots", S, snapshot("", 1)),
        ("impressions", IMP, impression("r", 1, [5, 5])),
        ("impressions", IMP, impression("r", 1, [])),
        ("impressions", IMP, impression("r", 1, range(1, MAX_ITEMS + 2))),
        ("impressions", IMP, barrier("", 1)),
        ("actions", A, action("r", 1, kind=77)),
        ("actions", A, ev.EventRecord(action=ev.Action(event_id="a", request_id="r")).SerializeToString()),
    ],
)
def test_the_lake_calls_malformed_what_the_join_calls_malformed(table, source, raw):
    with pytest.raises(Malformed) as refused:
        decode(source, raw, MAX_ITEMS)
    (row,) = rows_of(table, raw)
    assert (row["record"], row["detail"]) == ("malformed", str(refused.value))
    assert row["items"] == refused.value.items
    assert row["occurred_us"] is None
    assert {row[name] for name in NOT_EVENTS} == {None}


def test_a_tombstone_is_a_malformed_row():
    assert [row["record"] for row in rows_of("actions", None)] == ["malformed"]


def test_a_scoring_time_that_is_none_is_null_and_kills_nothing():
    message = ev.EventRecord.FromString(snapshot("r", 100))
    message.snapshot.scored_at.seconds = 2**63 - 1
    (row,) = rows_of("snapshots", message.SerializeToString())
    assert (row["record"], row["scored_us"]) == ("event", None)


def test_a_sample_record_becomes_one_row_per_item():
    rows = rows_of("samples", sample_record(), sample_record())
    assert [(row["offset"], row["row"], row["item_id"]) for row in rows] == [
        (offset, at, at + 1) for offset in (40, 41) for at in range(3)
    ]
    message, row = one_sample(), rows[1]
    assert row == {
        "partition": 2, "offset": 40, "row": 1, "appended_ms": 1000, "request_id": "r", "occurred_us": 100,
        "user_id": 9, "schema_hash": 77, "generation": 1, "policy": "online", "sequence": 5, "arm": "online",
        "item_id": 2, "label": 0.0, "label_version": 0, "position": 1,
        "score": struct.unpack_from("<f", message.scores, 4)[0], "sample_rate": 1.0, "impressed_us": 104,
        "acted_us": None, "scored_us": 107, "joined_us": None, "user_features": message.user_features,
        "item_features": message.item_features[8:16],
    }  # fmt: skip


def test_barriers_of_samples_are_no_rows_and_no_faults():
    mark = ev.SampleRecord(barrier=ev.Barrier(barrier_id="b")).SerializeToString()
    rows, bad = to_rows("samples", [LogRecord(0, 0, 0, mark)])
    assert (rows.num_rows, bad) == (0, [])


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"\xff", "record"),
        (None, "record"),
        (sample_record(item_ids=b""), "item_ids"),
        (sample_record(item_ids=b"1234567"), "item_ids"),
        (sample_record(labels=b"1234"), "labels"),
        (sample_record(label_versions=b""), "label_versions"),
        (sample_record(item_features=b"123"), "item_features"),
        (sample_record(request_id=""), "request_id"),
        (ev.SampleRecord(sample=ev.TrainingSample()).SerializeToString(), "item_ids"),
    ],
)
def test_a_poison_sample_is_named_and_its_neighbours_are_kept(raw, field):
    records = [LogRecord(0, at, 0, value) for at, value in enumerate([sample_record(), raw, sample_record()])]
    rows, bad = to_rows("samples", records)
    assert set(rows["offset"].to_pylist()) == {0, 2}
    assert [(one.partition, one.offset) for one in bad] == [(0, 1)]
    assert isinstance(bad[0], BadRecord)
    assert bad[0].detail.startswith(f"{field}=")


def test_no_records_are_an_empty_table_of_the_same_schema():
    for table in TABLES:
        assert rows_of(table) == []
