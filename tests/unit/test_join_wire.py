"""What the join writes by hand is what protobuf writes; what its timers give is what a heap gives."""

from __future__ import annotations

import heapq
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.events.v1 import events_pb2 as ev
from services.contract import join_wire as wire
from services.contract.join_rows import ShownRows
from services.contract.join_scan import scored_of
from services.contract.join_timers import Timers
from services.contract.times import from_us, set_us

TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
U64 = st.integers(0, 2**64 - 1)


@st.composite
def scored(draw: st.DrawFn) -> tuple[ev.FeatureSnapshot, list[int]]:
    """A snapshot and some of its items, in an order of their own; every optional field there or not."""
    items = draw(st.lists(U64, min_size=1, max_size=6, unique=True))
    width, n = draw(st.integers(0, 3)), len(items)
    snapshot = ev.FeatureSnapshot(
        request_id=draw(st.text(max_size=5)),
        occurred_at=from_us(draw(TIMES)),
        user_id=draw(U64 | st.just(0)),
        schema_hash=draw(U64 | st.just(0)),
        arm=draw(st.sampled_from(["", "online"])),
        item_ids=struct.pack(f"<{n}Q", *items),
        scores=draw(st.binary(min_size=4 * n, max_size=4 * n)),
        item_features=draw(st.binary(min_size=4 * width * n, max_size=4 * width * n)),
        user_features=draw(st.sampled_from([b"", b"userfeat"])),
    )
    if draw(st.booleans()):
        snapshot.model.sequence = draw(st.integers(0, 300))
    if draw(st.booleans()):
        snapshot.scored_at.CopyFrom(from_us(draw(TIMES)))
    return snapshot, draw(st.permutations(items))[: draw(st.integers(1, n))]


def by_protobuf(
    snapshot: ev.FeatureSnapshot, rows: list[tuple[int, int]], label: float, version: int
) -> ev.TrainingSample:
    """The sample of (item, position) rows, built field by field."""
    served = struct.unpack(f"<{len(snapshot.item_ids) // 8}Q", snapshot.item_ids)
    width, at, n = (
        len(snapshot.item_features) // len(served),
        [served.index(item) for item, _ in rows],
        len(rows),
    )
    sample = ev.TrainingSample(
        request_id=snapshot.request_id,
        occurred_at=snapshot.occurred_at,
        user_id=snapshot.user_id,
        schema_hash=snapshot.schema_hash,
        arm=snapshot.arm,
        item_ids=struct.pack(f"<{n}Q", *(item for item, _ in rows)),
        positions=struct.pack(f"<{n}I", *(position for _, position in rows)),
        labels=struct.pack("<f", label) * n,
        label_versions=struct.pack("<I", version) * n,
        scores=b"".join(snapshot.scores[4 * k : 4 * k + 4] for k in at),
        item_features=b"".join(snapshot.item_features[width * k : width * k + width] for k in at),
        user_features=snapshot.user_features,
    )
    if snapshot.HasField("model"):
        sample.model.CopyFrom(snapshot.model)
    if snapshot.HasField("scored_at"):
        sample.scored_at.CopyFrom(snapshot.scored_at)
    return sample


@given(scored(), st.tuples(TIMES, TIMES), st.integers(0, 3), st.sampled_from([1.0, 0.25]), st.data())
def test_samples_by_hand_are_the_bytes_of_protobuf(
    given_: tuple[ev.FeatureSnapshot, list[int]],
    times_us: tuple[int, int],
    version: int,
    rate: float,
    data: st.DataObject,
) -> None:
    (snapshot, shown), (impressed_us, acted_us) = given_, times_us
    packed = struct.pack(f"<{len(shown)}Q", *shown)
    rows = ShownRows(scored_of(snapshot, 0), packed, b"", impressed_us)
    row = data.draw(st.integers(0, len(shown) - 1))
    positive = by_protobuf(snapshot, [(shown[row], row)], 0.5, version)
    positive.sample_rate = 1.0
    set_us(positive.impressed_at, impressed_us)
    set_us(positive.acted_at, acted_us)
    assert rows.positive(row, 0.5, acted_us, version) == positive.SerializeToString()
    left = sorted(data.draw(st.sets(st.integers(0, len(shown) - 1), min_size=1)))
    negatives = by_protobuf(snapshot, [(shown[k], k) for k in left], 0.0, 0)
    negatives.sample_rate = rate
    set_us(negatives.impressed_at, impressed_us)
    assert rows.negatives(left, rate) == negatives.SerializeToString()


@given(TIMES, st.binary(max_size=300))
def test_the_record_around_a_sample_is_the_bytes_of_protobuf(joined_us: int, features: bytes) -> None:
    sample = ev.TrainingSample(request_id="r", item_features=features)
    whole = ev.SampleRecord(sample=sample)
    set_us(whole.sample.joined_at, joined_us)
    made = wire.sample_record(sample.SerializeToString(), wire.joined_at(joined_us))
    assert made == whole.SerializeToString()


STEPS = st.lists(
    st.tuples(st.just("arm"), st.integers(-(2**16), 2**17))
    | st.tuples(st.just("now"), st.integers(-(2**16), 2**17)),
    max_size=60,
)


@given(STEPS, st.booleans())
def test_timers_come_in_the_order_of_a_heap_also_those_armed_meanwhile(
    steps: list[tuple[str, int]], rearm: bool
) -> None:
    timers, heap, number = Timers[int](), [], 0

    def arm(due_us: int) -> None:
        nonlocal number
        number += 1
        timers.arm(due_us, number)
        heapq.heappush(heap, (due_us, number))

    now_us = -(2**17)
    for what, at in steps:
        if what == "arm":
            arm(at)
            continue
        now_us = max(now_us, at)
        for found in timers.due(now_us):
            assert (heap[0][0] < now_us, heap[0][1]) == (True, found)
            due_us, _ = heapq.heappop(heap)
            if rearm and found % 3 == 0:
                arm(due_us + 5_000)
        assert not heap or heap[0][0] >= now_us


@pytest.mark.parametrize("opened", [False, True])
def test_timers_keep_what_is_wanted(opened: bool) -> None:
    timers = Timers[int]()
    for number in range(40):
        timers.arm(1_000 * number, number)
    if opened:
        assert list(timers.due(3_500)) == [0, 1, 2, 3]
    timers.keep(lambda number: number % 2 == 1)
    assert list(timers.due(10**9)) == list(range(5 if opened else 1, 40, 2))
