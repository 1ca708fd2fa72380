"""The load generator over real gRPC, against servers that refuse, hang and come back."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import numpy as np
import pytest

from loadgen.arrivals import SHOWN, Plan
from loadgen.births import Births
from loadgen.event_sender import EventSender
from loadgen.live import Live
from loadgen.load import DROPPED, EventClock, Load, LoadConfig
from loadgen.timeline import Timeline, schedule
from loadgen.visit import click, impression
from loadgen.world import World
from loadgen.world_clock import WorldClock
from loadgen.world_config import WorldConfig
from rec.v1 import collector_pb2, collector_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from services.contract.times import from_us, to_us

SMALL = WorldConfig(items=20_000, users=2_000)


class Collector(collector_pb2_grpc.CollectorServiceServicer):
    """Answers as told: a list of status codes to fail with first."""

    def __init__(self, failures=()):
        self.failures = list(failures)
        self.batches = []
        self.items = []

    async def LogEvents(self, request, context):
        self.batches.append(request)
        if self.failures:
            await context.abort(self.failures.pop(0), "as told")
        now = from_us(time.time_ns() // 1000)
        return collector_pb2.LogEventsResponse(accepted=1, acknowledged_at=now)

    async def PublishItems(self, request, context):
        if self.failures:
            await context.abort(self.failures.pop(0), "as told")
        self.items += list(request.items)
        return collector_pb2.PublishItemsResponse(accepted=len(request.items))


class Gateway(gateway_pb2_grpc.GatewayServiceServicer):
    """Recommends the first items of the world; may be slow."""

    def __init__(self, world, delay_s=0.0):
        self.world = world
        self.delay_s = delay_s
        self.requests = []

    async def Recommend(self, request, context):
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        response = gateway_pb2.RecommendResponse(request_id=request.request_id, candidates=1_000)
        for item in self.world.items.ids[: request.n].tolist():
            response.items.add(item_id=item, score=0.1)
        response.provenance.arm = "online"
        response.provenance.scored = True
        for arm in request.shadow_arms:
            shadow = response.shadows.add(arm=arm, scored=True)
            shadow.item_ids.extend(self.world.items.ids[50 : 50 + request.n].tolist())
        return response


@asynccontextmanager
async def serving(servicer, add):
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def collecting(servicer):
    return serving(servicer, collector_pb2_grpc.add_CollectorServiceServicer_to_server)


@asynccontextmanager
async def sending(channel, rows, **changes):
    options = {"linger_s": 0.0, "deadline_s": 2.0, "tries": 4, "max_pending": 100, **changes}
    sender = EventSender(channel, rows.append, **options)
    task = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def events():
    shown = impression("r1", 7, [11, 12, 13], 1_000_000, scored=True)
    return [shown, click("r1", 7, 12, 2_000_000)]


async def test_an_unacknowledged_batch_is_sent_again_with_the_same_event_ids():
    servicer = Collector([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
    rows = []
    async with collecting(servicer) as channel, sending(channel, rows) as sender:
        for event in events():
            assert sender.put(event)
        await asyncio.wait_for(sender.flush(), 10)
    assert len(servicer.batches) == 3
    assert servicer.batches[0] == servicer.batches[1] == servicer.batches[2]
    assert [(row.kind, row.items, row.item_id) for row in rows] == [("impression", 3, 0), ("click", 1, 12)]
    assert sender.counts == {"retries": 2, "acknowledged": 2}
    assert sender.pending == 0


async def test_a_refused_batch_is_counted_and_never_sent_again():
    servicer = Collector([grpc.StatusCode.INVALID_ARGUMENT])
    rows = []
    async with collecting(servicer) as channel, sending(channel, rows) as sender:
        sender.put(events()[0])
        await asyncio.wait_for(sender.flush(), 10)
    assert len(servicer.batches) == 1 and rows == []
    assert sender.counts == {"refused": 1}


async def test_events_are_lost_only_after_all_tries_and_counted():
    servicer = Collector([grpc.StatusCode.UNAVAILABLE] * 9)
    rows = []
    async with collecting(servicer) as channel, sending(channel, rows, tries=2) as sender:
        sender.put(events()[0])
        await asyncio.wait_for(sender.flush(), 10)
    assert sender.counts == {"retries": 1, "lost": 1} and rows == []


async def test_more_events_than_may_wait_are_dropped_and_counted():
    rows = []
    async with collecting(Collector()) as channel, sending(channel, rows, max_pending=1) as sender:
        first, second = events()
        assert sender.put(first) and not sender.put(second)
        await asyncio.wait_for(sender.flush(), 10)
    assert sender.counts == {"dropped": 1, "acknowledged": 1}


async def test_what_was_born_is_published_in_order_once_and_after_a_failure_again():
    world, clock = World(SMALL), WorldClock(0)
    now = [10_000_000]
    servicer = Collector([grpc.StatusCode.UNAVAILABLE])
    async with collecting(servicer) as channel:
        births = Births(channel, world, clock, lambda: now[0])
        with pytest.raises(grpc.aio.AioRpcError):
            await births.publish_due()
        assert births.published == 0
        await births.publish_due()
        now[0] = 400_000_000
        await births.publish_due()
    ids = [item.item_id for item in servicer.items]
    assert ids == world.items.ids[SMALL.items : SMALL.items + len(ids)].tolist()
    assert births.published == len(ids) == world.born_until(400.0) - SMALL.items > 1_900
    assert all(to_us(item.created_at) <= now[0] and item.category > 0 for item in servicer.items)


class Recorder:
    def __init__(self):
        self.rows = []

    def request(self, row):
        self.rows.append(row)


def plan_of(count: int, click_draw: float) -> Plan:
    shape = (count, SHOWN)
    clicks = np.full(shape, click_draw, np.float32)
    who = np.random.default_rng(1).random((count, 3))
    at_s = np.linspace(0, 0.2, count)
    return Plan(at_s, np.ones(count), who, clicks, np.full(shape, 0.01, np.float32))


async def run_load(gateway, plan, **changes):
    options = {
        "run": "t", "n": 20, "candidates": 1_000, "deadline_s": 1.0, "max_in_flight": 50,
        "shadow_arm": "frozen", "shadow_share": 1.0, "window_s": 20.0, "time_scale": 1.0,
        "shares": {}, "experiment": "t", **changes,
    }  # fmt: skip
    collector, rows, recorder = Collector(), [], Recorder()
    add = gateway_pb2_grpc.add_GatewayServiceServicer_to_server
    async with (
        serving(gateway, add) as to_gateway,
        collecting(collector) as to_collector,
        sending(to_collector, rows) as sender,
    ):
        events = EventClock(1.0)
        live = Live(start_us=events.start_us)
        load = Load(
            gateway.world,
            WorldClock(events.start_us),
            events,
            LoadConfig(**options),
            gateway=to_gateway,
            sender=sender,
            recorder=recorder,
            live=live,
        )
        gateway.load = load
        await load.run(plan)
        await asyncio.wait_for(sender.flush(), 10)
    return live, recorder.rows, rows


async def test_every_answer_is_shown_judged_and_its_clicks_come_back():
    gateway = Gateway(World(SMALL))
    live, requests, acks = await run_load(gateway, plan_of(5, click_draw=0.0))
    assert len(gateway.requests) == live.answered == len(requests) == 5
    assert all(r.shadow_arms == ["frozen"] and r.HasField("occurred_at") for r in gateway.requests)
    shown = [ack for ack in acks if ack.kind == "impression"]
    clicked = [ack for ack in acks if ack.kind == "click"]
    # A draw of 0 clicks on everything.
    assert [ack.items for ack in shown] == [SHOWN] * 5 and len(clicked) == 5 * SHOWN
    assert len({ack.event_id for ack in acks}) == len(acks)
    impressed = {ack.request_id: ack.occurred_us for ack in shown}
    assert all(0 < ack.occurred_us - impressed[ack.request_id] < 1_000_000 for ack in clicked)
    assert all(row.frozen_true_p is not None and row.ideal_true_p >= row.shown_true_p for row in requests)


async def test_a_slow_answer_is_an_error_after_its_deadline_and_delays_nobody():
    gateway = Gateway(World(SMALL), delay_s=5.0)
    began = time.monotonic()
    live, requests, acks = await run_load(gateway, plan_of(4, 1.0), deadline_s=0.3)
    assert time.monotonic() - began < 3
    assert [row.status for row in requests] == ["DEADLINE_EXCEEDED"] * 4
    assert live.answered == 0 and acks == []


async def test_a_request_beyond_the_limit_in_flight_is_dropped_and_counted():
    gateway = Gateway(World(SMALL), delay_s=0.5)
    live, requests, _ = await run_load(gateway, plan_of(6, 1.0), max_in_flight=2)
    assert live.dropped_sends == 4
    assert sorted(row.status for row in requests) == [DROPPED] * 4 + ["OK"] * 2


async def test_a_load_that_is_told_to_stop_answers_for_what_it_has_sent():
    class Stopping(Gateway):
        async def Recommend(self, request, context):
            self.load.stop()
            return await super().Recommend(request, context)

    gateway = Stopping(World(SMALL), delay_s=0.3)
    live, requests, acks = await run_load(gateway, plan_of(50, click_draw=0.0))
    assert 1 <= len(gateway.requests) < 50
    assert len(requests) == live.answered == len(gateway.requests)
    assert sum(ack.kind == "impression" for ack in acks) == len(requests)


async def run_with(scenario: str, plan: Plan):
    world = World(SMALL)
    world.begin(Timeline(schedule(f"{scenario}@0" if scenario else "", 0.0)))
    gateway = Gateway(world)
    return world, await run_load(gateway, plan)


@pytest.mark.parametrize(("scenario", "sent"), [("", 3), ("bots", 6), ("black-friday", 9)])
async def test_requests_of_a_surge_are_sent_when_so_many_come(scenario, sent):
    needs = np.array([1.0, 1.2, 1.9, 4.4] * 3)
    _, (live, requests, _) = await run_with(scenario, replace(plan_of(12, click_draw=1.0), needs=needs))
    assert live.answered == len(requests) == sent


async def test_a_bot_reads_the_whole_list_clicks_on_what_is_bad_and_is_recorded_as_one():
    plan = plan_of(4, click_draw=0.999)
    plan.who_draws[:, 2] = 0.0
    world, (_, requests, acks) = await run_with("bots", plan)
    bad = world.items.ids[np.flatnonzero(world.items.quality[:SHOWN] < 0)].tolist()
    assert 1 < len(bad) < SHOWN
    for row in requests:
        assert row.bot and row.shown_true_p is None and row.frozen_true_p is None
        assert [
            ack.item_id for ack in acks if ack.kind == "click" and ack.request_id == row.request_id
        ] == bad
    assert {row.user_id for row in requests}.isdisjoint(world.users.ids.tolist())
