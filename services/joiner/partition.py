"""One owned partition: its join, its transactional producer, and what waits for the next transaction.

Taking records is synchronous; committing runs beside it. A transaction holds every output said up to one
moment and the positions of that same moment, so that a crash between two transactions repeats nothing and
loses nothing.

Opening: start the producer (fences an older owner and ends its transaction) -> read what is committed ->
restore the join -> read from its low water with outputs off -> go on. Any failure of a transaction ends the
object: its outcome is unknown, and the next one opens from what is really committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from services.contract.errors import Conflict
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_position import Position, encode_position
from services.joiner import metrics
from services.joiner.cadence import Cadence, Waiting
from services.joiner.outgoing import Outgoing
from services.joiner.recovery import recover
from services.joiner.said import Said
from services.joiner.scheme import Scheme
from services.joiner.settings import Settings
from services.joiner.traces import join_traces
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import ConsumerRecord, GroupReader, TopicPartition
from services.runtime.kafka_transactions import TransactionalProducer
from services.runtime.telemetry import observe_all

log = metrics.log


class PartitionJoin:
    """``open``, then ``take`` for every batch read while ``run`` commits; ``finish`` or ``drop`` at the
    end."""

    def __init__(
        self,
        partition: int,
        settings: Settings,
        config: JoinConfig,
        wall: WallClock,
        *,
        scheme: Scheme,
        peak: metrics.Peak,
    ) -> None:
        self.partition = partition
        self.inputs = {
            source: TopicPartition(topic, partition) for source, topic in scheme.names.inputs.items()
        }
        self.intake = scheme.intake()
        self.peak = peak
        self.last_barrier_id = ""
        self.committed: dict[Source, Position] = {}
        self._settings = settings
        self._config = config
        self._wall = wall
        self._scheme = scheme
        self._producer = TransactionalProducer(settings.kafka, f"{settings.group_id}-{partition}")
        self._cadence = Cadence(
            settings.positive_commit_ms / 1000,
            settings.commit_interval_ms / 1000,
            settings.offsets_commit_ms / 1000,
        )
        self._metrics = metrics.TaskMetrics(partition)
        self._said = Said(partition, scheme.names)
        self._traces = join_traces(scheme.names.samples)
        self._waiting = Waiting()
        self._changed = asyncio.Event()
        self._committing = asyncio.Lock()
        self._broken = False
        self._task: JoinTask | None = None

    @property
    def task(self) -> JoinTask:
        """The join; only after ``open``."""
        if self._task is None:
            raise Conflict(f"partition {self.partition} is not open")
        return self._task

    @property
    def replaying(self) -> bool:
        """Whether the state is still being rebuilt."""
        return self._task is None or self._task.replaying

    @property
    def full(self) -> bool:
        """Whether reading must wait for the next commit."""
        return len(self._said.records) >= self._settings.max_transaction_records

    # -- life --------------------------------------------------------------------------------------------

    async def open(self, reader: GroupReader) -> None:
        """Takes the partition over; the reader stands at the low water of each input when this returns.

        OtherRules: the configuration does not fit the committed state. Unavailable: try again."""
        await self._producer.start()
        wanted = list(self.inputs.values())
        kept = await self._producer.committed(self._settings.group_id, wanted)
        begin, end = await reader.beginning_offsets(wanted), await reader.end_offsets(wanted)
        found = recover(
            {source: kept[where] for source, where in self.inputs.items() if where in kept},
            {source: begin[where] for source, where in self.inputs.items()},
            {source: end[where] for source, where in self.inputs.items()},
        )
        for source, loss in found.losses.items():
            metrics.UNREADABLE.labels(loss).inc()
            log.error("state incomplete", input=source.name.lower(), partition=self.partition, why=loss)
        task = self._scheme.task(self._config, found.positions)
        self.committed = dict(found.positions)
        for source, where in self.inputs.items():
            reader.seek(where, task.replay_from[source])
        self._task = task
        log.info(
            "partition opened",
            partition=self.partition,
            epoch=self._producer.epoch,
            replay={s.name.lower(): task.replay_until[s] - task.replay_from[s] for s in self.inputs},
        )

    async def finish(self) -> None:
        """Commits what has been said, within ``commit_timeout_ms``; what fails is the next owner's to say
        again."""
        try:
            async with asyncio.timeout(self._settings.commit_timeout_ms / 1000):
                if not self.replaying:
                    await self._commit()
        except Exception as error:
            log.warning("last transaction failed", partition=self.partition, error=repr(error))

    async def drop(self) -> None:
        """Lets go without committing."""
        self._task = None
        await self._producer.stop()

    # -- reading -----------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Payload bytes in memory, joined or waiting to be."""
        return self.task.held_bytes + self.intake.waiting_bytes

    def take(self, source: Source, records: Sequence[ConsumerRecord] = ()) -> None:
        """Joins a batch of one input, and what its scheme then lets in. Repeated offsets are skipped, missing
        ones counted."""
        for now, ready in self.intake.order(self.task, source, records):
            self._join(now, ready)
        self.peak.note(self.task.held_events + self.intake.waiting, self.held_bytes)

    def _join(self, source: Source, records: Sequence[ConsumerRecord]) -> None:
        task, said = self.task, self._said
        replaying, before = task.replaying, len(said.records)
        now_us = self._wall.now_us()
        if self._traces is not None:
            self._traces.read(records, now_us)
        missing = said.join(task, source, records, now_us)
        if missing:
            metrics.GAPS.labels(str(self.partition), source.name.lower()).inc(missing)
        if replaying:
            metrics.REPLAYED.labels(str(self.partition)).inc(len(records))
        elif records:
            self._note(output=len(said.records) > before)

    def _note(self, *, output: bool) -> None:
        said = self._said
        if said.barrier_id:
            self.last_barrier_id = said.barrier_id
        for source, behind_us in said.late:
            metrics.LATE_SECONDS.labels(source.name.lower()).observe(behind_us / 1e6)
        said.late.clear()
        self._waiting.note(
            time.monotonic(), output=output, positive=said.positive, barrier=bool(said.barrier_id)
        )
        self._changed.set()

    async def end_replay(self, reader: GroupReader) -> bool:
        """Goes on to live records once each input has been read up to its committed offset."""
        task = self.task
        if self.intake.waiting:
            return False
        for source, where in self.inputs.items():
            until = task.replay_until[source]
            if task.inputs[source].next_offset < until and await reader.position(where) < until:
                return False
        task.end_replay()
        for source, where in self.inputs.items():
            reader.seek(where, task.replay_until[source])
        log.info("replay ended", partition=self.partition, held=task.held_events)
        return True

    def read_enough(self) -> set[TopicPartition]:
        """Inputs not to be read now: replayed already, or the outputs wait for their commit."""
        if self._task is None:
            return set()
        if not self._task.replaying:
            return set(self.inputs.values()) if self.full else set()
        return {
            where
            for source, where in self.inputs.items()
            if self._task.inputs[source].next_offset >= self._task.replay_until[source]
        }

    # -- committing --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commits whenever it is due, until cancelled or until a transaction fails (Conflict: fenced)."""
        while True:
            await self._due()
            await self._commit()

    async def _due(self) -> None:
        while True:
            wait_s = self._waiting.due_s(self._cadence) - time.monotonic()
            if wait_s <= 0 or self.full:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(None if wait_s == float("inf") else wait_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _commit(self) -> None:
        async with self._committing:
            if self._broken:
                # The outputs of a failed transaction are gone: positions beyond them must not be committed.
                raise Conflict(f"partition {self.partition}: an earlier transaction failed")
            positions = self.task.positions()
            said, self._said = self._said, Said(self.partition, self._scheme.names)
            batch = said.records
            self._waiting = Waiting()
            if not batch and positions == self.committed:
                return
            self._broken = True
            await self._scheme.fill(self.task, batch)
            with metrics.TRANSACTION_SECONDS.time():
                await self._traced(batch, positions)
            self._broken = False
            self.committed = positions
            metrics.TRANSACTION_RECORDS.observe(len(batch))
            _count_written(batch)
            now_ms = self._wall.now_us() // 1000
            for outcome, at_ms in said.decided.items():
                if at_ms:
                    waited_s = [max(0, now_ms - at) / 1000 for at in at_ms]
                    observe_all(metrics.EMIT_SECONDS.labels(outcome), waited_s)
            self._metrics.update(self.task, self.held_bytes, self.intake.waiting)

    async def _traced(self, batch: list[Outgoing], positions: dict[Source, Position]) -> None:
        if self._traces is None:
            await self._transact(batch, positions)
            return
        spans = self._traces.begin(batch, self._wall.now_us())
        try:
            await self._transact(batch, positions)
        finally:
            self._traces.end(spans)

    async def _transact(self, batch: list[Outgoing], positions: dict[Source, Position]) -> None:
        """Outputs and positions become visible together, or neither does."""
        producer = self._producer
        await producer.begin()
        await producer.send_all(batch)
        await producer.send_offsets(
            {self.inputs[source]: (p.offset, encode_position(p)) for source, p in positions.items()},
            self._settings.group_id,
        )
        await producer.commit()


def _count_written(batch: list[Outgoing]) -> None:
    for topic in {one.topic for one in batch}:
        sizes = [len(one.value) for one in batch if one.topic == topic]
        metrics.WRITTEN_RECORDS.labels(topic).inc(len(sizes))
        metrics.WRITTEN_BYTES.labels(topic).inc(sum(sizes))
