"""Starts the collector: ``python -m services.collector --help``."""

from __future__ import annotations

import asyncio
from functools import partial

from rec.v1 import collector_pb2_grpc
from services.collector.intake import Intake
from services.collector.records import BARRIER_TOPICS, heartbeat_value
from services.collector.recover import newest_event_us
from services.collector.servicer import CollectorServicer
from services.collector.settings import CollectorSettings
from services.runtime.clock import RunClock, WallClock
from services.runtime.grpc_server import GrpcServer
from services.runtime.heartbeats import HeartbeatWriter
from services.runtime.kafka_producer import Producer
from services.runtime.process import Process, run
from services.runtime.settings import load
from services.runtime.telemetry import freeze_after_load

SERVICE = "rec.v1.CollectorService"


async def main(settings: CollectorSettings, process: Process) -> None:
    """Wires the process; returns when it serves."""
    producer = Producer(settings.kafka, settings.name)
    run_clock = RunClock(settings.time_scale)
    heartbeats = HeartbeatWriter(
        producer,
        run_clock,
        {topic.name: topic.partitions for topic in BARRIER_TOPICS},
        partial(heartbeat_value, settings.name),
        settings.heartbeat_idle_ms,
    )
    intake = Intake(producer, settings.max_in_flight_events, heartbeats.wrote)
    servicer = CollectorServicer(settings, intake, run_clock, WallClock())
    server = GrpcServer(
        settings.grpc,
        process,
        [(collector_pb2_grpc.add_CollectorServiceServicer_to_server, servicer, SERVICE)],
    )
    await server.start()
    await producer.start()
    process.push_close("producer", producer.stop)
    newest = await newest_event_us(settings.kafka, settings.name)
    if newest is not None:
        run_clock.observe(newest)
    # Thousands of events wait for Kafka at any time: the garbage collector, which they keep busy, would walk
    # over everything that was imported again and again.
    freeze_after_load()
    process.spawn(heartbeats.run(), "heartbeats")
    process.spawn(_report_readiness(settings, producer, server), "readiness")


async def _report_readiness(settings: CollectorSettings, producer: Producer, server: GrpcServer) -> None:
    while True:
        server.set_serving(producer.connected)
        await asyncio.sleep(settings.readiness_ms / 1000)


if __name__ == "__main__":
    loaded = load(CollectorSettings)
    run(loaded, partial(main, loaded))
