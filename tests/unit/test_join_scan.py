"""What is read straight from the bytes is what protobuf reads, and never anything that decode refuses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rec.events.v1 import events_pb2 as ev
from services.contract.join_events import NAMES, SOURCES, Malformed, Source, decode
from services.contract.join_scan import Event, of_message, scan
from services.contract.times import from_us

MAX_ITEMS = 6
IDS = st.text(min_size=1, max_size=8) | st.sampled_from(["r" * 64, "r" * 65, "ü" * 64, "r" * 128])
U64 = st.integers(1, 2**64 - 1) | st.just(0)
TIMES = st.integers(1_000, 2**34 * 1_000_000) | st.sampled_from([1, 999_999, 1_000_000])


def floats(draw: st.DrawFn, count: int) -> bytes:
    return draw(st.binary(min_size=4 * count, max_size=4 * count))


@st.composite
def snapshots(draw: st.DrawFn) -> ev.EventRecord:
    n, width = draw(st.integers(1, MAX_ITEMS)), draw(st.integers(0, 30))
    made = ev.FeatureSnapshot(
        user_id=draw(U64),
        schema_hash=draw(U64),
        arm=draw(st.sampled_from(["", "online", "größer"])),
        item_ids=draw(st.binary(min_size=8 * n, max_size=8 * n)),
        scores=floats(draw, n),
        user_features=floats(draw, draw(st.integers(0, 3))),
        item_features=floats(draw, n * width),
    )
    if draw(st.booleans()):
        made.model.sequence = draw(st.integers(0, 2**40))
        made.model.lineage.policy = draw(st.sampled_from(["", "online"]))
    if draw(st.booleans()):
        made.scored_at.CopyFrom(from_us(draw(TIMES)))
    return ev.EventRecord(snapshot=made)


@st.composite
def impressions(draw: st.DrawFn) -> ev.EventRecord:
    items = draw(st.lists(U64, min_size=1, max_size=MAX_ITEMS, unique=True))
    made = ev.Impression(user_id=draw(U64), item_ids=items, unscored=draw(st.booleans()))
    if draw(st.booleans()):
        top = draw(st.sampled_from([127, 2**32 - 1]))
        made.positions.extend(draw(st.integers(0, top)) for _ in items)
    return ev.EventRecord(impression=made)


@st.composite
def actions(draw: st.DrawFn) -> ev.EventRecord:
    made = ev.Action(user_id=draw(U64), item_id=draw(U64), kind=draw(st.integers(1, 4)))
    if draw(st.booleans()):
        made.dwell.seconds, made.dwell.nanos = draw(st.integers(0, 100)), draw(st.integers(-1, 2**31 - 1))
    return ev.EventRecord(action=made)


MADE = {Source.SNAPSHOTS: snapshots(), Source.IMPRESSIONS: impressions(), Source.ACTIONS: actions()}


@st.composite
def records(draw: st.DrawFn) -> tuple[Source, ev.EventRecord]:
    """A record of an input as its writer makes it."""
    source = draw(st.sampled_from(SOURCES))
    record = draw(MADE[source])
    event = getattr(record, NAMES[source])
    event.event_id, event.request_id = draw(IDS), draw(IDS)
    event.occurred_at.CopyFrom(from_us(draw(TIMES)))
    event.occurred_at.nanos += draw(st.integers(0, 999))
    return source, record


@st.composite
def mangled(draw: st.DrawFn) -> tuple[Source, bytes]:
    """The same with wrong bytes, without some, with more, or as the record of another input."""
    source, record = draw(records())
    raw = bytearray(record.SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(len(raw), 90)))
        some = draw(
            st.binary(max_size=3) | st.sampled_from([b"\x00", b"\x80\x00", b"\x08\x00", b"\x0a\x01r"])
        )
        raw[at : at + draw(st.integers(0, 3))] = some
    if draw(st.booleans()):
        # A field once more, or one that nobody knows, with the envelope that fits.
        inner = getattr(record, NAMES[source]).SerializeToString()
        inner += draw(st.sampled_from([b"\x21" + bytes(8), b"\x7a\x01x", b"\x30\x01", b"\x38\x00", b""]))
        raw = bytearray((8 * (source + 1) | 2, *varint(len(inner)))) + inner
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))) :]
    return draw(st.sampled_from([source, *SOURCES])), bytes(raw)


def varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def by_decode(source: Source, raw: bytes) -> Event | None:
    try:
        name, occurred_us, message = decode(source, raw, MAX_ITEMS)
    except Malformed:
        return None
    return of_message(source, message, occurred_us) if name == NAMES[source] else None


def values(event: Event | None) -> object:
    if event is None:
        return None
    # Slots, in machine code too.
    found = {name: getattr(event, name) for name in dir(event) if not name.startswith("_")}
    assert {"event_id", "request_id", "occurred_us"} < set(found)
    return type(event), found


def usual(source: Source, record: ev.EventRecord) -> bool:
    """What has to be read from the bytes, or nothing is gained."""
    event = getattr(record, NAMES[source])
    if event.occurred_at.seconds < 1:
        return False
    if source is Source.IMPRESSIONS:
        return max(event.positions, default=0) < 128
    return source is not Source.ACTIONS or not event.HasField("dwell") or event.dwell.nanos >= 0


@settings(max_examples=400, deadline=None)
@given(records())
def test_a_usual_record_is_read_from_its_bytes_with_the_values_of_protobuf(
    case: tuple[Source, ev.EventRecord],
) -> None:
    source, record = case
    raw = record.SerializeToString()
    found, wanted = values(scan(source, raw, MAX_ITEMS)), values(by_decode(source, raw))
    assert found in (wanted, None)
    if usual(source, record) and (source is not Source.ACTIONS or not record.action.HasField("dwell")):
        assert found == wanted


@settings(max_examples=1_500, deadline=None)
@given(mangled())
@example((Source.ACTIONS, b""))
@example((Source.ACTIONS, b"\x1a\x00"))
def test_nothing_else_is_read_otherwise_than_by_protobuf(case: tuple[Source, bytes]) -> None:
    source, raw = case
    if (found := scan(source, raw, MAX_ITEMS)) is not None:
        assert values(found) == values(by_decode(source, raw))


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_cut_off_anywhere_is_left_to_decode(source: Source) -> None:
    event_of = {
        Source.SNAPSHOTS: ev.FeatureSnapshot(item_ids=bytes(range(16)), scores=bytes(8), arm="a", user_id=3),
        Source.IMPRESSIONS: ev.Impression(item_ids=[1, 2], positions=[0, 1], unscored=True),
        Source.ACTIONS: ev.Action(item_id=1, kind=ev.ACTION_KIND_LIKE),
    }
    event = event_of[source]
    event.event_id, event.request_id = "e", "r"
    event.occurred_at.CopyFrom(from_us(1_700_000_000_123_456))
    raw = ev.EventRecord(**{NAMES[source]: event}).SerializeToString()
    assert scan(source, raw, MAX_ITEMS) is not None
    assert [cut for cut in range(len(raw)) if scan(source, raw[:cut], MAX_ITEMS) is not None] == []
    # Nor one whose inner end does not fit its envelope.
    assert scan(source, raw[:1] + bytes([raw[1] - 1]) + raw[2:-1], MAX_ITEMS) is None
    assert scan(source, raw + b"\x00", MAX_ITEMS) is None
    assert scan(source, raw + raw, MAX_ITEMS) is None


def test_explicit_defaults_are_left_to_decode() -> None:
    stamp = b"\x1a\x02\x08\x01"
    plain = b"\x0a\x01e\x12\x01r" + stamp + b"\x29" + struct.pack("<Q", 5)
    for last, taken in ((b"\x30\x01", True), (b"\x30\x00", False), (b"\x30\x81\x00", False), (b"", False)):
        raw = b"\x1a" + varint(len(plain + last)) + plain + last
        assert (scan(Source.ACTIONS, raw, MAX_ITEMS) is not None) is taken
