"""Spans of records from their producer through join and training: headers, links, limits; values stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from aiokafka.structs import RecordMetadata
from prometheus_client import REGISTRY

from services.collector.records import Record
from services.contract import topics
from services.contract.delta import Header
from services.contract.trace_ids import TRACEPARENT, SpanRef, parse, root_of, traceparent
from services.joiner import traces as join_traces_module
from services.joiner.outgoing import Outgoing
from services.joiner.traces import MAX_EVENTS, JoinTraces, join_traces
from services.runtime.kafka_outbox import Outbox
from services.runtime.kafka_outbox import Outgoing as Sent
from services.runtime.otel import SpanKind, Tracing
from services.runtime.settings import KafkaSettings
from tests.otlp_kit import Receiver, receiving, traced
from trainer.samples import RawRecord
from trainer.traces import DeltaTraces, delta_traces

SHOWN, SNAPSHOTS, SAMPLES = (topics.IMPRESSIONS.name, topics.FEATURE_SNAPSHOTS.name, topics.SAMPLES.name)
HEADER = Header(3, "online", 7, 1, b"", 0, 1, samples_trained=99)


@pytest.fixture
def receiver():
    with receiving() as opened:
        yield opened


@pytest.fixture
def active(receiver: Receiver):
    with traced(receiver, max_links=3) as opened:
        yield opened


class Broker:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.taken: list[Sent] = []
        self.fails = False
        self.outbox = Outbox(KafkaSettings(), "unit", self._hand)

    async def _hand(self, record: Sent) -> asyncio.Future[RecordMetadata]:
        self.taken.append(record)
        answer: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        if self.fails:
            answer.set_exception(ConnectionError("gone"))
        else:
            answer.set_result(RecordMetadata(record.topic, 1, None, 17, None, None, None))  # type: ignore[call-arg]
        return answer

    async def put(self, topic: str, key: bytes | None, headers=None) -> Sent:
        """One record, answered."""
        future = self.outbox.put(topic, b"value", key, headers, 1)
        pump = asyncio.create_task(self.outbox.pump())
        await asyncio.wait([future])
        pump.cancel()
        return self.taken[-1]


@pytest.fixture
async def broker(active: Tracing) -> AsyncIterator[Broker]:
    yield Broker()


async def test_a_record_of_a_request_stands_in_its_trace_whoever_sends_it(broker, active, receiver) -> None:
    sent = await broker.put(SHOWN, b"r-1")
    active.flush()
    span = receiver.named(f"send {SHOWN}")
    assert (span.ref.trace_id, span.parent) == root_of("r-1")
    assert sent.headers == [(TRACEPARENT, traceparent(span.ref).encode())]
    assert sent.value == b"value"
    assert span.attributes["messaging.kafka.offset"] == 17
    assert span.attributes["messaging.destination.partition.id"] == "1"
    assert not span.failed


async def test_inside_a_span_of_the_same_trace_it_is_the_parent_another_is_not(
    broker, active, receiver
) -> None:
    ours = active.start("ours", SpanKind.SERVER, SpanRef(root_of("r-1").trace_id, 5))
    other = active.start("other", SpanKind.SERVER)
    with active.inside(ours):
        await broker.put(SNAPSHOTS, b"r-1")
    with active.inside(other):
        await broker.put(SHOWN, b"r-1")
        await broker.put(topics.MODEL_DELTAS.name, b"1/online")
    active.flush()
    assert receiver.named(f"send {SNAPSHOTS}").parent == ours.get_span_context().span_id
    assert receiver.named(f"send {SHOWN}").parent == root_of("r-1").span_id
    assert receiver.named("send model-deltas").parent == other.get_span_context().span_id


async def test_what_belongs_to_no_trace_has_no_header(broker, active, receiver) -> None:
    assert (await broker.put(SHOWN, None)).headers is None  # a heartbeat, a barrier
    assert (await broker.put(topics.CATALOG.name, b"12345678")).headers is None
    kept = topics.rejection_headers("late", SHOWN, 0, 1)
    assert (await broker.put(topics.LATE_EVENTS.name, b"r-1", kept)).headers == kept
    active.flush()
    assert receiver.spans == []


async def test_a_record_that_kafka_did_not_take_is_a_failed_span(broker, active, receiver) -> None:
    broker.fails = True
    await broker.put(SHOWN, b"r-1")
    active.flush()
    assert receiver.named(f"send {SHOWN}").failed


async def test_records_sent_together_have_a_span_each_and_are_told_all_the_same(
    broker, active, receiver
) -> None:
    pump, ended = asyncio.create_task(broker.outbox.pump()), asyncio.Queue()
    records = [Record(SHOWN, 1, b"r-1", b"value"), Record(SHOWN, 1, b"r-2", b"value")]
    broker.outbox.put_each(records, lambda *how: ended.put_nowait(how))
    told = [await ended.get() for _ in records]
    broker.fails = True
    broker.outbox.put_each([Record(SAMPLES, 1, b"r-3", b"value")], lambda *how: ended.put_nowait(how))
    failed = await ended.get()
    pump.cancel()
    active.flush()
    assert [(topic, placed.offset, error) for topic, placed, error in told] == [(SHOWN, 17, None)] * 2
    assert (failed[:2], str(failed[2])) == ((SAMPLES, None), "send to samples: ConnectionError('gone')")
    assert receiver.named(f"send {SAMPLES}").failed
    parents = {span.parent for span in receiver.spans if span.name == f"send {SHOWN}"}
    assert parents == {root_of("r-1").span_id, root_of("r-2").span_id}


async def test_off_no_record_has_a_header() -> None:
    assert (await Broker().put(SHOWN, b"r-1")).headers is None
    assert join_traces(SAMPLES) is None
    assert delta_traces() is None


def event(key: bytes, ref: SpanRef | None) -> SimpleNamespace:
    headers = () if ref is None else ((TRACEPARENT, traceparent(ref).encode()),)
    return SimpleNamespace(key=key, headers=headers)


def test_a_sample_links_to_its_events_and_its_bytes_stay(active, receiver) -> None:
    joins = join_traces(SAMPLES)
    assert joins is not None
    wrote = [SpanRef(root_of("r-1").trace_id, number) for number in (11, 12, 13)]
    joins.read([event(b"r-1", one) for one in wrote[:2]], 1_000)
    joins.read([event(b"r-1", wrote[2]), event(b"r-2", None)], 2_000)
    mine, none = Outgoing(SAMPLES, b"rows", b"r-1", 2), Outgoing(SAMPLES, b"barrier", None, 2)
    dead = Outgoing(topics.DEAD_LETTERS.name, b"x", b"r-1", 0, [("reason", b"malformed")])
    spans = joins.begin([mine, none, dead], 5_000)
    joins.end(spans)
    active.flush()
    (span,) = receiver.spans
    assert (span.name, span.ref.trace_id, span.parent) == ("join", *root_of("r-1"))
    assert span.links == tuple(wrote)
    assert span.start_us == 2_000
    assert mine.headers == [(TRACEPARENT, traceparent(span.ref).encode())]
    assert (mine.value, none.headers, dead.headers) == (b"rows", None, [("reason", b"malformed")])


def test_what_the_join_remembers_is_bounded_and_counted(active: Tracing, monkeypatch) -> None:
    monkeypatch.setattr(join_traces_module, "MAX_REQUESTS", 5)
    joins = JoinTraces(active, SAMPLES)

    def forgotten(of: str) -> float:
        return REGISTRY.get_sample_value("recloop_joiner_traces_forgotten_total", {"of": of}) or 0.0

    requests, links = forgotten("request"), forgotten("link")
    joins.read([event(b"r-%d" % number, SpanRef(1, number + 1)) for number in range(8)], 1)
    assert forgotten("request") - requests == 3
    joins.read([event(b"r-7", SpanRef(1, 100 + number)) for number in range(MAX_EVENTS + 4)], 1)
    assert forgotten("link") - links == 5


def read(traces: DeltaTraces, key: bytes, ref: SpanRef | None) -> RawRecord:
    return RawRecord(0, 1, b"", key, span=traces.wrote(event(key, ref)))


def test_a_delta_is_one_trace_that_links_to_what_it_learned_from(active, receiver) -> None:
    traces = delta_traces()
    assert traces is not None
    joined = SpanRef(root_of("r-1").trace_id, 21)
    # One whose joiner wrote no header: the request itself stands for it.
    traces.trained([read(traces, b"r-1", joined), read(traces, b"r-2", None)], 20, 1_000)
    traces.trained([read(traces, b"r-3", joined)], 10, 2_000)
    traces.sealed(HEADER)
    # Learned while the delta flies: the next one's.
    traces.trained([read(traces, b"r-4", None)], 10, 3_000)
    with traces.publishing():
        flying = active.current()
    traces.sealed(HEADER)
    with traces.publishing():
        second = active.current()
    active.flush()
    first, other = sorted(
        (one for one in receiver.spans if one.name == "delta"), key=lambda one: one.start_us
    )
    assert (first.ref, other.ref) == (flying, second)
    assert first.attributes == {
        "recloop.lineage": "3/online",
        "recloop.sequence": 7,
        "recloop.samples_trained": 99,
    }
    steps = [one for one in receiver.spans if one.name == "train"]
    assert [one.parent for one in steps] == [first.ref.span_id] * 2 + [other.ref.span_id]
    assert [one.links for one in steps] == [(joined, root_of("r-2")), (joined,), (root_of("r-4"),)]
    assert steps[0].attributes["messaging.batch.message_count"] == 2


def test_links_beyond_the_limit_are_left_out_and_counted(active, receiver) -> None:
    before = REGISTRY.get_sample_value("recloop_trace_links_left_out_total") or 0.0
    traces = DeltaTraces(active)
    traces.trained([read(traces, b"r-%d" % number, None) for number in range(10)], 10, 1_000)
    traces.sealed(HEADER)
    with traces.publishing():
        pass
    active.flush()
    assert receiver.named("train").links == tuple(root_of(f"r-{number}") for number in (7, 8, 9))
    assert REGISTRY.get_sample_value("recloop_trace_links_left_out_total") - before == 7


def test_a_delta_of_untraced_requests_has_no_span(receiver) -> None:
    with traced(receiver, sample_ratio=0.0) as active:
        traces = DeltaTraces(active)
        traces.trained([read(traces, b"r-1", None)], 10, 1_000)
        traces.sealed(HEADER)
        with traces.publishing():
            assert active.current() is None
        assert parse(None) is None
        active.flush()
    assert receiver.spans == []
