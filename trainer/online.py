"""The online trainer's loop: poll samples -> learn (an executor thread) -> publish (one delta in flight)
-> base.

Learning goes on while a delta is on its way. No torch work on the event loop; the executor has one thread for
all lineages of the process, and of each at most one poll and one delta wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

from services.contract import columns, topics
from services.contract.errors import Unavailable
from services.contract.model_schema import ModelShape
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import LogReader, Records, TopicPartition
from services.runtime.telemetry import counter, get_logger
from trainer.barriers import closed
from trainer.bases import BaseKeeper
from trainer.core import Plan, TrainerCore, UnknownSchema
from trainer.metrics import Metrics
from trainer.pace import Pace
from trainer.publisher import Publisher
from trainer.samples import RawRecord
from trainer.schemas import Schemas
from trainer.settings import OnlineSettings
from trainer.traces import DeltaTraces, delta_traces

log = get_logger(__name__)
_Result = TypeVar("_Result")


def min_row_bytes(shape: ModelShape) -> int:
    """The least that one row takes in a record: bounds the rows of a record before it is decoded."""
    return columns.U64.itemsize + (4 + shape.item_width) * columns.F32.itemsize


def bounded(records: list[RawRecord], max_rows: int, row_bytes: int) -> Iterator[list[RawRecord]]:
    """Cuts records into runs that cannot hold more than ``max_rows`` rows, of at least ``row_bytes`` each
    (one record is never cut)."""
    run: list[RawRecord] = []
    size = 0
    for record in records:
        rows = len(record.value) // row_bytes + 1
        if run and size + rows > max_rows:
            yield run
            run, size = [], 0
        run.append(record)
        size += rows
    if run:
        yield run


class OnlineTrainer:
    """Runs until ``stopping``; then publishes what it has learned and returns."""

    def __init__(
        self,
        settings: OnlineSettings,
        core: TrainerCore,
        reader: LogReader,
        publisher: Publisher,
        bases: BaseKeeper,
        *,
        schemas: Schemas,
        executor: ThreadPoolExecutor,
        base_due: bool = False,
        pace: Pace | None = None,
    ) -> None:
        """``pace``: None = a delta leaves as soon as it may."""
        self.core = core
        self.last_barrier = ""
        self._settings = settings
        self._row_bytes = min_row_bytes(core.state.shape)
        self._reader = reader
        self._publisher = publisher
        self._bases = bases
        self._schemas = schemas
        self.stopping = asyncio.Event()
        self._clock = WallClock()
        self._executor = executor
        self._flight: asyncio.Task[None] | None = None
        self._published_s = 0.0
        self._base_s = 0.0
        self._base_due = base_due
        self._pace = pace
        self._traces = delta_traces()
        self._metrics = Metrics(f"{core.state.generation}/{core.state.policy}")
        self._pressure = counter("trainer_backpressure", "Polls put off because a delta was due.", ["reason"])

    async def run(self) -> None:
        """The loop; ends with the last delta acknowledged."""
        now = asyncio.get_running_loop().time()
        self._published_s, self._base_s = now, now
        try:
            while not self.stopping.is_set():
                await self._turn()
            await self._landed()
            await self._publish()
            await self._landed()
        finally:
            if self._flight is not None:
                self._flight.cancel()

    async def in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Runs work on the one thread that may touch the core."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def refresh(self) -> None:
        """Keeps the rolling figures in the metrics; until cancelled."""
        while True:
            await asyncio.sleep(self._settings.status_interval_s)
            self._metrics.figures(await self.in_thread(self.core.rolling.figures))

    async def _turn(self) -> None:
        self._check_flight()
        if self._must_publish_first():
            await self._landed()
        await self._maybe_publish()
        await asyncio.sleep(self._settings.gather_ms / 1000)
        records = await self._gathered()
        for run in bounded(records, self._settings.max_poll_rows, self._row_bytes):
            await self._train(run)
            if self._must_publish_first():
                self._pressure.labels("delta").inc()
                await self._landed()
            await self._maybe_publish()

    async def _gathered(self) -> list[RawRecord]:
        """What one poll finds, or, where samples wait for a barrier, all polls until it is there."""
        records = _raw(await self._poll(), self._traces)
        clock = asyncio.get_running_loop()
        until = clock.time() + self._settings.barrier_gather_ms / 1000
        while (
            0 < len(records) < self._settings.max_poll_records
            and clock.time() < until
            and not closed(records, self.core.barriers.partitions)
            and not self.stopping.is_set()
        ):
            records += _raw(await self._poll(), self._traces)
        return sorted(records, key=lambda record: (record.partition, record.offset))

    async def _poll(self) -> Records:
        try:
            return await self._reader.poll(
                timeout_ms=self._settings.poll_ms, max_records=self._settings.max_poll_records
            )
        except Unavailable as error:
            self._metrics.poll_failures.inc()
            log.warning("samples not readable", error=str(error))
            await asyncio.sleep(self._settings.publish_retry_ms / 1000)
            return {}

    async def _train(self, run: list[RawRecord]) -> None:
        now_us = self._clock.now_us()
        with self._metrics.step_seconds.time():
            try:
                rows = await self.in_thread(lambda: self.core.train(run, now_us, refuse_unknown=False))
            except UnknownSchema as unknown:
                log.info("samples of a feature set that is new here", hashes=str(unknown))
                await self._schemas.learn(self._settings.publish_retry_ms / 1000, self.stopping.is_set)
                if self.stopping.is_set():
                    return
                rows = await self.in_thread(lambda: self.core.train(run, now_us))
        if self._traces is not None:
            self._traces.trained(run, rows, now_us)
        self._metrics.trained(rows, self.core)
        self._metrics.waited([raw.sent_us for raw in run], self._clock.now_us())

    def _must_publish_first(self) -> bool:
        over = self.core.touched.rows >= self._settings.max_delta_rows or self.core.full
        return over and self._flight is not None

    async def _maybe_publish(self) -> None:
        # A barrier leaves as soon as the delta before it has landed, whatever comes meanwhile.
        if self._flight is not None and self.core.barriers.complete and self._due():
            await self._landed()
        if self._flight is not None:
            return
        full = self.core.touched.rows >= self._settings.max_delta_rows or self.core.full
        if full or self._due():
            await self._publish()

    def _due(self) -> bool:
        if self._pace is not None:
            return self._pace.due(self.core.passed_us)
        waited_s = asyncio.get_running_loop().time() - self._published_s
        return waited_s * 1000 >= self._settings.publish_interval_ms or bool(self.core.barriers.complete)

    async def _publish(self) -> None:
        """Puts the next delta into flight, when there is anything to say."""
        now = asyncio.get_running_loop().time()
        with_base = self._base_due or now - self._base_s >= self._settings.base_interval_s
        now_us = self._clock.now_us()
        passed_us = self.core.passed_us
        plan = await self.in_thread(lambda: self._sealed(now_us, with_base))
        if self._pace is not None:
            self._pace.published(passed_us)
        if plan is None:
            return
        if self._traces is not None:
            self._traces.sealed(plan.header)
        self._published_s = now
        if plan.base is not None:
            self._base_s, self._base_due = now, False
        self._flight = asyncio.get_running_loop().create_task(self._fly(plan), name="delta")

    def _sealed(self, now_us: int, with_base: bool) -> Plan | None:
        with self._metrics.seal_seconds.time():
            return self.core.build(now_us, with_base=with_base)

    async def _fly(self, plan: Plan) -> None:
        traced = nullcontext() if self._traces is None else self._traces.publishing()
        with self._metrics.publish_seconds.time(), traced:
            offset = await self._publisher.publish(plan)
        await self.in_thread(self.core.ack)
        self._metrics.published(plan, self._clock.now_us())
        if plan.header.barrier_ids:
            self.last_barrier = plan.header.barrier_ids[-1]
        if plan.base is not None:
            self._bases.offer(plan.base, offset + 1)

    def _check_flight(self) -> None:
        if self._flight is not None and self._flight.done():
            flight, self._flight = self._flight, None
            flight.result()

    async def _landed(self) -> None:
        if self._flight is not None:
            await asyncio.wait([self._flight])
            self._check_flight()

    async def stop(self) -> None:
        """Takes down what ``run`` may have left when it was cancelled."""
        if self._flight is not None:
            self._flight.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flight


async def sample_starts(
    reader: LogReader, offsets: dict[int, int]
) -> tuple[dict[TopicPartition, int], frozenset[int]]:
    """Where to read each partition of samples: at the state's offset, else from its beginning."""
    partitions = await reader.partitions(topics.SAMPLES.name)
    beginnings = await reader.beginning_offsets(partitions)
    starts = {where: offsets.get(where.partition, beginnings[where]) for where in partitions}
    return starts, frozenset(where.partition for where in partitions)


def _raw(found: Records, traces: DeltaTraces | None) -> list[RawRecord]:
    records = [record for of_one in found.values() for record in of_one]
    raw = [RawRecord(r.partition, r.offset, r.value or b"", r.key, r.timestamp * 1000) for r in records]
    if traces is None:
        return raw
    return [replace(one, span=traces.wrote(record)) for one, record in zip(raw, records, strict=True)]
