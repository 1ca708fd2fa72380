"""The collector over real gRPC and a real broker."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.kafka_server import KafkaServer
from rec.events.v1 import events_pb2
from rec.v1 import collector_pb2, collector_pb2_grpc
from services.collector.__main__ import main
from services.collector.settings import CollectorSettings
from services.contract import topics
from services.contract.times import from_us, to_us
from services.runtime import grpc_errors
from services.runtime.grpc_client import channel
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, KafkaSettings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for this file: other tests' events would set the run clock of these collectors."""
    server = KafkaServer(tmp_path_factory.mktemp("collector-kafka"))
    server.start()
    try:
        server.create_topics()
        yield server.bootstrap
    finally:
        server.kill()


BASE_US = 900_000_000_000_000
SERVING = health_pb2.HealthCheckResponse.SERVING


class Rig:
    """A running collector, its stub, and a reader of the log."""

    def __init__(self, settings: CollectorSettings, process: Process, ports: list[int]) -> None:
        self.settings, self.process = settings, process
        self.channel = channel(f"127.0.0.1:{ports[0]}")
        self.stub = collector_pb2_grpc.CollectorServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def until_health(self, status: int) -> None:
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        async for answer in watch:
            if answer.status == status:
                break
        watch.cancel()

    async def log(self, shown: list, acted: list = [], timeout: float = 10.0):  # noqa: B006 - read only
        request = collector_pb2.LogEventsRequest(impressions=shown, actions=acted)
        return await self.stub.LogEvents(request, timeout=timeout)

    async def records(self) -> list[tuple[TopicPartition, events_pb2.EventRecord]]:
        """Everything on impressions and actions."""
        reader = LogReader(self.settings.kafka, "test")
        await reader.start()
        try:
            where = [TopicPartition(t, p) for t in ("impressions", "actions") for p in range(4)]
            ends = await reader.end_offsets(where)
            reader.assign(dict.fromkeys(where, 0))
            found: list[tuple[TopicPartition, events_pb2.EventRecord]] = []
            async with asyncio.timeout(15):
                while any([await reader.position(one) < ends[one] for one in where]):
                    for one, records in (await reader.poll()).items():
                        found += [(one, events_pb2.EventRecord.FromString(r.value)) for r in records]
            return found
        finally:
            await reader.stop()


@pytest.fixture
async def make(free_ports: Callable[[int], list[int]]) -> AsyncIterator[Callable]:
    rigs: list[Rig] = []

    async def start(bootstrap: str, **changes: object) -> Rig:
        ports = free_ports(3)
        limits = {"stalled_ms": 500, "request_timeout_ms": 2_000, **changes.pop("kafka", {})}  # type: ignore[dict-item]
        settings = CollectorSettings(
            grpc=GrpcServerSettings(port=ports[0], admin_port=ports[1], metrics_port=ports[2]),
            kafka=KafkaSettings(bootstrap_servers=bootstrap, **limits),
            readiness_ms=50,
            **{"time_scale": 0.0, **changes},
        )
        process = Process(settings)
        await main(settings, process)
        rigs.append(Rig(settings, process, ports))
        await rigs[-1].until_health(SERVING)
        return rigs[-1]

    yield start
    for rig in rigs:
        await rig.channel.close()
        await rig.process.close()


@pytest.fixture
def unique() -> Iterator[Callable[[], str]]:
    prefix = uuid.uuid4().hex[:8]
    numbers = iter(range(10**9))
    return lambda: f"{prefix}-{next(numbers)}"


def impression(request_id: str, event_us: int = BASE_US, **changes: object) -> events_pb2.Impression:
    fields = {
        "event_id": f"{request_id}:shown",
        "request_id": request_id,
        "user_id": 7,
        "item_ids": [1, 2],
        "occurred_at": from_us(event_us),
        **changes,
    }
    return events_pb2.Impression(**fields)


def click(request_id: str, event_us: int = BASE_US) -> events_pb2.Action:
    return events_pb2.Action(
        event_id=f"{request_id}:1:1",
        request_id=request_id,
        user_id=7,
        item_id=1,
        kind=events_pb2.ACTION_KIND_CLICK,
        occurred_at=from_us(event_us),
    )


async def test_what_is_acknowledged_is_in_the_log_by_key_and_a_repeat_is_written_again(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker)
    request_ids = [unique() for _ in range(50)]
    shown, acted = [impression(one) for one in request_ids], [click(one) for one in request_ids]
    before = time.time_ns() // 1000
    for _ in range(2):
        answer = await rig.log(shown, acted)
        assert answer.accepted == 100
        assert to_us(answer.acknowledged_at) >= before
    seen: Counter[tuple[str, str]] = Counter()
    for where, record in await rig.records():
        event = record.impression if record.HasField("impression") else record.action
        if event.request_id in request_ids:
            seen[where.topic, event.event_id] += 1
            assert where.partition == topics.partition_of(event.request_id.encode(), 4)
    assert len(seen) == 100
    assert set(seen.values()) == {2}, "repeats are the joiner's to suppress"


async def test_one_bad_event_refuses_the_batch_and_nothing_is_written(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker)
    good, bad = unique(), unique()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.log([impression(good), impression(bad, item_ids=[5, 5])], [])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in grpc_errors.violations_of(caught.value)] == ["impressions[1].item_ids"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.log([], [])
    assert grpc_errors.violations_of(caught.value)[0][0] == "events"
    written = {record.impression.request_id for _, record in await rig.records()}
    assert not {good, bad} & written


async def test_the_future_and_the_distant_past_are_measured_from_the_run(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker, time_scale=1.0)
    await rig.log([impression(unique(), BASE_US)])
    for event_us in (BASE_US + 120_000_000, BASE_US - 2 * 86_400_000_000):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.log([impression(unique(), event_us)])
        assert grpc_errors.violations_of(caught.value)[0][0] == "impressions[0].occurred_at"
    assert (await rig.log([impression(unique(), BASE_US + 30_000_000)])).accepted == 1


async def test_a_stream_is_answered_once_when_all_is_acknowledged(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker, stream_window=4)
    request_ids = [unique() for _ in range(60)]
    requests = (collector_pb2.StreamEventsRequest(impressions=[impression(one)]) for one in request_ids)
    answer = await rig.stub.StreamEvents(requests, timeout=10)
    assert answer.accepted == 60
    written = {record.impression.request_id for _, record in await rig.records()}
    assert set(request_ids) <= written


async def test_a_bad_batch_ends_its_stream_with_its_index(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker)
    batches = [[impression(unique())], [impression(unique(), user_id=0)]]
    requests = (collector_pb2.StreamEventsRequest(impressions=batch) for batch in batches)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.StreamEvents(requests, timeout=10)
    assert grpc_errors.violations_of(caught.value)[0][0] == "requests[1].impressions[0].user_id"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.stub.StreamEvents(iter(()), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_items_reach_the_catalogue(make: Callable, broker: str) -> None:
    rig = await make(broker)
    items = [events_pb2.Item(item_id=number, category=number % 64) for number in range(1, 101)]
    answer = await rig.stub.PublishItems(collector_pb2.PublishItemsRequest(items=items), timeout=10)
    assert answer.accepted == 100
    reader = LogReader(rig.settings.kafka, "test")
    await reader.start()
    where = TopicPartition("catalog", 0)
    reader.assign({where: 0})
    found: dict[bytes, events_pb2.Item] = {}
    async with asyncio.timeout(10):
        while len(found) < 100:
            for record in (await reader.poll()).get(where, []):
                found[record.key] = events_pb2.Item.FromString(record.value)
    await reader.stop()
    assert found == {item.item_id.to_bytes(8, "little"): item for item in items}


async def test_a_barrier_stands_behind_everything_acknowledged_on_every_partition(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker)
    await rig.log([impression(unique()) for _ in range(100)])
    request = collector_pb2.CollectorServiceEmitBarrierRequest(
        barrier_id="b1", occurred_at=from_us(BASE_US + 1)
    )
    await rig.stub.EmitBarrier(request, timeout=10)
    last = dict(await rig.records())
    assert len(last) == 8
    assert {record.barrier.barrier_id for record in last.values()} == {"b1"}
    assert {to_us(record.barrier.occurred_at) for record in last.values()} == {BASE_US + 1}


async def test_idle_partitions_get_heartbeats_that_carry_the_run_clock(
    make: Callable, private_kafka, unique: Callable[[], str]
) -> None:
    rig = await make(private_kafka.bootstrap, time_scale=1.0, heartbeat_idle_ms=50)
    await asyncio.sleep(0.3)
    assert await rig.records() == [], "no event, no event time"
    await rig.log([impression(unique())])
    beats: dict[TopicPartition, list[int]] = {}
    async with asyncio.timeout(10):
        while len(beats) < 8 or min(len(times) for times in beats.values()) < 3:
            beats = {}
            for where, record in await rig.records():
                if record.HasField("heartbeat"):
                    assert record.heartbeat.writer == "collector"
                    beats.setdefault(where, []).append(to_us(record.heartbeat.occurred_at))
    for times in beats.values():
        assert times == sorted(times)
        assert BASE_US <= times[0] < times[-1] < BASE_US + 15_000_000


async def test_no_heartbeats_when_event_time_moves_only_with_events(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker, time_scale=0.0, heartbeat_idle_ms=20)
    before = await rig.records()
    await rig.log([impression(unique())])
    await asyncio.sleep(0.3)
    assert len(await rig.records()) == len(before) + 1


async def test_a_restarted_collector_knows_what_time_it_is(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    first = await make(broker)
    await first.log([impression(unique(), BASE_US)])
    await first.process.close()
    second = await make(broker)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second.log([impression(unique(), BASE_US - 2 * 86_400_000_000)])
    assert grpc_errors.violations_of(caught.value)[0][0] == "impressions[0].occurred_at"


async def test_without_kafka_nothing_is_acknowledged_and_the_answer_comes_inside_the_deadline(
    make: Callable, private_kafka, unique: Callable[[], str]
) -> None:
    rig = await make(private_kafka.bootstrap, ack_reserve_ms=400)
    acknowledged = unique()
    await rig.log([impression(acknowledged)])
    private_kafka.kill()
    lost = unique()
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.log([impression(lost)], timeout=1.5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert grpc_errors.reason_of(caught.value) == "UNAVAILABLE", "named by the collector, not by the channel"
    assert time.monotonic() - began < 1.5
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.log([impression(unique())], timeout=5.0)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < 2.0, "known to be away: refused at once"
    await rig.until_health(health_pb2.HealthCheckResponse.NOT_SERVING)
    await asyncio.to_thread(private_kafka.start)
    await rig.until_health(SERVING)
    again = unique()
    assert (await rig.log([impression(again), impression(lost)])).accepted == 2
    written = Counter(record.impression.request_id for _, record in await rig.records())
    assert written[acknowledged] == 1
    assert written[again] == 1
    assert written[lost] >= 1


async def test_a_batch_beyond_the_limit_in_flight_is_refused_whole(
    make: Callable, private_kafka, unique: Callable[[], str]
) -> None:
    rig = await make(private_kafka.bootstrap, max_in_flight_events=10, kafka={"stalled_ms": 60_000})
    private_kafka.kill()
    eight = [impression(unique()) for _ in range(8)]
    first = asyncio.create_task(rig.log(eight, timeout=2.0))
    await asyncio.sleep(0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.log([impression(unique()) for _ in range(3)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert grpc_errors.reason_of(caught.value) == "OVERLOADED"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_many_clients_at_once_are_all_acknowledged(
    make: Callable, broker: str, unique: Callable[[], str]
) -> None:
    rig = await make(broker)
    answers = await asyncio.gather(
        *(rig.log([impression(unique())], [click(unique())], timeout=20) for _ in range(200))
    )
    assert sum(answer.accepted for answer in answers) == 400
