"""One click followed: what proves that a delta contains a sample, and how the story is told."""

from __future__ import annotations

import json
import socket

import pytest

from loadgen import trace_story
from loadgen.trace_proof import Contains, Search, Seen, rows_of, taken_back
from loadgen.trace_replicas import _applied, replicas
from loadgen.trace_story import Story, as_json, table
from rec.model.v1.model_pb2 import Lineage, ModelVersion, OffsetRange, Release, Rollback, RolledBack
from rec.v1.ranking_pb2 import WatchAppliedResponse
from services.contract.delta import Body, Header, Step, TableChange
from services.contract.errors import InvalidInput
from services.contract.trace_ids import trace_id_of
from services.runtime.settings import TlsSettings
from tests.trainer_kit import random_body

PARTITION, SAMPLE = 2, 100


def seen(sequence: int, read_to: int, steps: tuple[Step, ...] = (), **given) -> Seen:
    """Delta ``sequence`` of a chain, after which samples/2 has been read up to ``read_to``."""
    fields = {"previous_hash": bytes([sequence - 1]) * 32} | given
    header = Header(
        generation=1,
        policy="online",
        sequence=sequence,
        epoch=1,
        created_at_us=9_000,
        model_hash=1,
        sample_offsets={PARTITION: read_to, 3: 10_000},
        steps=steps,
        **fields,
    )
    return Seen(header, bytes([sequence]) * 32, offset=sequence, appended_us=10_000)


def search(*deltas: Seen) -> tuple[Contains | None, Search]:
    one = Search(PARTITION, SAMPLE)
    for delta in deltas:
        if found := one.take(delta):
            return found, one
    return None, one


def test_the_delta_that_first_reads_past_the_sample_contains_it() -> None:
    steps = (
        Step(7_000, {PARTITION: 99}),
        Step(8_000, {PARTITION: 101}),
        Step(8_500, {PARTITION: 130}),
    )
    found, _ = search(seen(5, 90), seen(6, 100), seen(7, 130, steps), seen(8, 200))
    assert found is not None
    assert (found.delta.header.sequence, found.read_from, found.read_to) == (7, 100, 130)
    assert (found.step, found.steps, found.trained_us) == (2, 3, 8_000)


def test_next_offset_equal_to_the_samples_does_not_contain_it() -> None:
    assert search(seen(5, 90), seen(6, SAMPLE))[0] is None
    found, _ = search(seen(5, SAMPLE), seen(6, SAMPLE + 1))
    assert found is not None and found.delta.header.sequence == 6


def test_without_the_delta_before_nothing_is_proved() -> None:
    found, one = search(seen(6, 130), seen(7, 140))
    assert found is None
    assert one.too_late


def test_another_chains_delta_before_proves_nothing() -> None:
    found, one = search(seen(5, 90), seen(6, 130, previous_hash=b"x" * 32))
    assert found is None
    assert not one.too_late


def test_the_first_delta_of_a_lineage_needs_none_before() -> None:
    found, one = search(seen(1, 130))
    assert found is not None and found.read_from == 0
    assert not one.too_late


def test_a_rollback_that_quarantines_the_sample_takes_it_back() -> None:
    def rollback(partition: int, start: int, end: int) -> Release:
        ranges = [OffsetRange(partition=partition, start=start, end=end)]
        done = RolledBack(order=1, restored_sequence=6, quarantined=ranges)
        lineage = Lineage(generation=1, policy="online")
        return Release(lineage=lineage, rollback=Rollback(order=1, done=done, sequence=9))

    mine = rollback(PARTITION, SAMPLE, SAMPLE + 1)
    assert taken_back(mine, (1, "online"), PARTITION, SAMPLE) == 9
    assert taken_back(mine, (2, "online"), PARTITION, SAMPLE) is None
    for other in (rollback(PARTITION, 0, SAMPLE), rollback(3, 0, 500), Release(lineage=mine.lineage)):
        assert taken_back(other, (1, "online"), PARTITION, SAMPLE) is None


def test_rows_say_what_of_the_sample_stands_in_the_body() -> None:
    body = random_body(1)
    item = next(change for change in body.tables if change.table == "item")
    assert rows_of(body, int(item.ids[0]), 1_000) == ["item"]
    assert rows_of(body, 1_000, 1_000) == []
    waiting = TableChange("user", pending_ids=item.ids[:1])
    assert rows_of(Body((waiting,)), 1_000, int(item.ids[0])) == ["user (pending)"]


def told() -> Story:
    story = Story("r1")
    # Found in another order than they happened, and by a clock that is behind.
    story.add(1_000_000, "request", "of user u")
    story.add(1_200_000, "answered", "10 of 1,000")
    story.add(1_150_000, "scored", "by 1/online at 56")
    story.add(2_000_000, "acknowledged", "the click")
    story.add(1_990_000, "clicked", "item 7")
    story.add(3_500_000, "applied", "by r1")
    return story


def test_a_story_is_told_in_the_order_of_cause_with_times_between() -> None:
    text = table(told(), "of it").splitlines()
    assert text[1] == f"trace id  {trace_id_of('r1'):032x}  (of it)"
    rows = [line.split() for line in text[4:10]]
    assert [row[4] if row[3] == "s" else row[2] for row in rows] == [
        "request", "scored", "answered", "clicked", "acknowledged", "applied",
    ]  # fmt: skip
    assert text[5].startswith("   0.150 s    0.150 s  scored")
    assert text[-1] == "from the click to a model that has learned it: 1.500 s"


def test_a_story_that_ends_early_says_why_and_what_is_missing() -> None:
    story = told()
    story.ends = "no sample of it has come in 60 s"
    assert table(story, "").endswith("ends here: no sample of it has come in 60 s")
    found = json.loads(as_json(story))
    assert found["missing"] == ["snapshot", "shown", "joined", "trained", "delta"]
    assert [moment["step"] for moment in found["moments"]][:2] == ["request", "scored"]
    assert set(trace_story.CLIENTS) < set(trace_story.STEPS)


def test_a_replica_that_has_forgotten_the_delta_does_not_claim_it() -> None:
    def said(sequence: int, size: int) -> str:
        model = ModelVersion(lineage=Lineage(generation=1, policy="online"), sequence=sequence)
        one = WatchAppliedResponse(replica="r1", arm="online", model=model, bytes=size, rows=1_234)
        return _applied(one, 57)

    assert said(57, 10) == "by replica r1, arm online: delta 57, 1,234 rows"
    assert said(57, 0) == "by replica r1, arm online: base 57"
    assert said(60, 0) == "by replica r1, arm online: by then, with a base at 60"
    assert said(60, 10) == "by replica r1, arm online: by then, with the oldest delta that it remembers at 60"


async def test_each_address_and_each_name_is_a_replica() -> None:
    plain, secured = TlsSettings(), TlsSettings(certificate_file="a", key_file="b", ca_file="c")
    assert await replicas("127.0.0.1:7054, 127.0.0.2:7054", plain) == ["127.0.0.1:7054", "127.0.0.2:7054"]
    assert await replicas("ranking:7054", secured) == ["ranking:7054"]
    for bad in ("", "ranking", "ranking:", "127.0.0.1:7054,", ":7054"):
        with pytest.raises(InvalidInput, match="ranking_target"):
            await replicas(bad, plain)


async def test_an_address_where_nobody_listens_is_a_place_without_a_replica() -> None:
    plain = TlsSettings()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        silent.bind(("127.0.0.2", 0))
        heard, unheard = f"127.0.0.1:{server.getsockname()[1]}", f"127.0.0.2:{silent.getsockname()[1]}"
        assert await replicas(f"{heard},{unheard}", plain) == [heard]
        assert await replicas(unheard, plain) == [unheard]
