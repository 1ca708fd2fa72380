"""``python -m loadgen simulate``: simulated users against a running, seeded stack; writes out/demo.json.

Requests come open-loop; users see the first ten of each answer and click by the world's hidden truth; the
clicks go back through the collector. Afterwards the run waits until everything shown is a sample (or has a
reason), sums up, checks that the loop closed, and ends with 1 when it did not.

SIGTERM ends the load early, and nothing else.

Order of a run: recorder first (it sees everything), births (the catalogue catches up), load, clicks still to
come, events still to be acknowledged, drain, figures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from contextlib import suppress

import grpc
import uvloop

from loadgen import demo_report, memory, world_clock
from loadgen.arrivals import Plan, plan
from loadgen.births import Births
from loadgen.event_sender import EventSender
from loadgen.evidence import EvidenceRecorder
from loadgen.live import Live
from loadgen.load import EventClock, Load, LoadConfig
from loadgen.rows import AckRow
from loadgen.scenario_service import ScenarioServicer, record, serving
from loadgen.settings import SimulateSettings
from loadgen.timeline import Timeline, schedule
from loadgen.world import World
from loadgen.world_clock import WorldClock
from services.contract.assignment import check_shares
from services.contract.errors import InvalidInput, Unavailable
from services.runtime import grpc_client
from services.runtime.settings import differing

CONNECT_S = 10.0
PROGRESS_S = 10.0
# Beyond the longest click delay: events that are still unacknowledged then count as lost.
FLUSH_S = 30.0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(settings: SimulateSettings) -> int:
    """Runs the load; 0 when the loop closed, 1 when a check failed. LoopError when it could not begin."""
    if settings.time_scale <= 0:
        raise InvalidInput.one("time_scale", settings.time_scale, "above 0: simulated users live in time")
    clock = world_clock.read(settings.run_dir, settings.sim.config())
    # Refused before anything is asked of the stack.
    schedule(settings.schedule, 0.0)
    if settings.shares:
        check_shares(settings.shares)
    world = World(settings.sim.config(), settings.drift)
    arrivals = plan(world.config.seed, settings.rate, settings.duration_s, settings.run)
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(_simulate(settings, world, clock, arrivals))
    except grpc.aio.AioRpcError as error:
        raise Unavailable(f"{error.code().name} {error.details()}") from error
    problems = demo_report.failures(figures, demo_report.Limits.of(settings))
    figures["failed_checks"] = problems
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "demo.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(demo_report.table(figures))
    for problem in problems:
        _say(f"simulate: FAILED: {problem}")
    return 1 if problems else 0


async def _simulate(
    settings: SimulateSettings, world: World, clock: WorldClock, arrivals: Plan
) -> dict[str, object]:
    recorder = EvidenceRecorder(
        settings.out / "evidence", settings.kafka, settings.ranking_target, settings.tls
    )
    gateway = grpc_client.channel(settings.gateway_target, settings.grpc_client, settings.tls)
    collector = grpc_client.channel(settings.collector_target, settings.grpc_client, settings.tls)
    async with gateway, collector:
        await _reachable("gateway", settings.gateway_target, gateway)
        await _reachable("collector", settings.collector_target, collector)
        await recorder.start()
        await _until(settings.begin_at)
        events = EventClock(settings.time_scale)
        live = Live(start_us=events.start_us)
        births = Births(collector, world, clock, events.now_us)
        await births.publish_due()
        _say(f"simulate: {settings.rate:g} requests/s for {settings.duration_s:.0f} s")
        load_config = _load_config(settings, events)
        start_s = clock.world_s(events.start_us)
        world.begin(Timeline(schedule(settings.schedule, start_s)))
        switches = ScenarioServicer(world, clock, events.now_us)

        def acknowledged(row: AckRow) -> None:
            recorder.acknowledged(row)
            live.acknowledged(row)

        async with serving(switches, settings.scenario_target, settings.tls), asyncio.TaskGroup() as group:
            sender = EventSender(
                collector,
                acknowledged,
                linger_s=settings.event_linger_ms / 1000,
                deadline_s=settings.event_deadline_ms / 1000,
                tries=settings.event_tries,
                max_pending=settings.max_pending_events,
            )
            load = Load(
                world,
                clock,
                events,
                load_config,
                gateway=gateway,
                sender=sender,
                recorder=recorder,
                live=live,
            )
            helpers = [
                group.create_task(sender.run(), name="event sender"),
                group.create_task(births.run(), name="births"),
                group.create_task(_progress(live), name="progress"),
            ]
            # Whoever watches has seen enough: what was sent is still answered, drained and summed up.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
            cpu_s = time.process_time()
            await load.run(arrivals)
            happened = record(world, clock, clock.world_s(events.now_us()))
            cpu_s = time.process_time() - cpu_s
            unflushed = await _flush(sender)
            for task in helpers:
                task.cancel()
        began = time.monotonic()
        recorder.scenarios(happened)
        drained = await recorder.drain(settings.drain_ms / 1000)
        drain_s = time.monotonic() - began
        summary = await recorder.finish()
    return demo_report.figures(
        live,
        summary,
        {
            "seed": settings.sim.seed,
            "settings": differing(settings),
            "drift": settings.drift,
            "scenarios": [
                {"name": row.name, "from_s": row.from_s - start_s, "until_s": row.until_s - start_s}
                for row in happened
            ],
            "offered_rps": settings.rate,
            "duration_s": settings.duration_s,
            "generator_cpu_ms_per_request": 1000 * cpu_s / max(live.requests, 1),
            "drained": drained,
            "drain_s": round(drain_s, 2),
            "items_born": births.published,
            "birth_failures": births.failures,
            "events": {
                **{name: sender.counts[name] for name in demo_report.EVENT_FATES},
                "pending": unflushed,
            },
            "shadow_share": live.paired / live.answered if live.answered else None,
            "peak_memory_mb": memory.peak_mb(settings.run_dir),
        },
    )


def _load_config(settings: SimulateSettings, events: EventClock) -> LoadConfig:
    return LoadConfig(
        # Request ids are new in every run, so that a stack can be loaded again.
        run=f"sim-{events.start_us:x}",
        n=settings.n,
        candidates=settings.candidates,
        deadline_s=settings.deadline_ms / 1000,
        max_in_flight=settings.max_in_flight,
        shadow_arm=settings.shadow_arm,
        shadow_share=settings.shadow_share,
        window_s=settings.window_ms / 1000,
        time_scale=settings.time_scale,
        shares=settings.shares,
        experiment=settings.experiment,
    )


async def _until(begin_at: int) -> None:
    """Waits for a Unix second, when one is given; InvalidInput when it has passed."""
    left_s = begin_at - time.time()
    if begin_at and left_s < 0:
        raise InvalidInput.one("begin_at", begin_at, f"a moment to come: it was {-left_s:.1f} s ago")
    await asyncio.sleep(max(left_s, 0.0))


async def _reachable(name: str, target: str, channel: grpc.aio.Channel) -> None:
    try:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
    except TimeoutError:
        raise Unavailable(f"no {name} at {target}: is the stack up? (python -m local up)") from None


async def _flush(sender: EventSender) -> int:
    """Waits for the acknowledgements; how many events are still without one."""
    with suppress(TimeoutError):
        await asyncio.wait_for(sender.flush(), FLUSH_S)
    return sender.pending


async def _progress(live: Live) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_S)
        latency = live.latency_ms()
        # The newest span has only begun: its shown items have not had the time to be clicked.
        spans = [span for span in live.ctr_per_span() if span is not None][:-1]
        _say(
            f"  {time.monotonic() - began:4.0f} s  {live.requests:6} requests  "
            f"{live.requests - live.answered} errors  "
            f"p50 {latency['p50'] or 0:.1f} ms  p99 {latency['p99'] or 0:.1f} ms  "
            f"CTR {spans[-1] if spans else 0:.3f}  model {live.newest[0]}.{live.newest[1]}"
        )
