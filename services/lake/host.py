"""The lake's event loop: one group membership, a buffer and a writer per owned partition of the topics.

What is in the lake decides where reading starts; the group only shares the partitions out, and its
committed offsets are for lag monitors. While a flush runs (in a thread, one at a time) or the store fails,
nothing is polled: the client's fetch buffers fill up, and then it stops fetching.

Down: the loop ends -> every buffer is flushed -> the group is left. The same for partitions that are
revoked. A partition that another writer has opened is dropped until the group assigns it again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.contract.errors import Conflict, LoopError, NotFound, Unavailable
from services.contract.lake_rows import TABLES, TOPIC_OF, LogRecord
from services.contract.lake_store import LakeStore
from services.lake import metrics
from services.lake.flush_rules import Buffer, Limits, due
from services.lake.partition import PartitionWriter
from services.lake.settings import Settings
from services.runtime.kafka_consumer import GroupReader, Records, TopicPartition

log = metrics.log
TABLE_OF = {topic: table for table, topic in TOPIC_OF.items()}
_POLL_MS = 200


class Part:
    """An owned partition. ``first``: the offset from which the buffer covers its range; ``position``: the
    next one to read."""

    def __init__(self, writer: PartitionWriter, first: int) -> None:
        self.writer = writer
        self.first = first
        self.position = first
        self.buffer = Buffer()


class LakeHost:
    """``start``, then ``run`` as a guarded task that ends when ``stopping`` is set; ``close`` at the end."""

    def __init__(self, settings: Settings, store: LakeStore) -> None:
        self._settings = settings
        self._store = store
        self._limits = Limits(
            settings.flush_records,
            settings.flush_bytes,
            settings.flush_age_ms / 1000,
            settings.max_buffered_bytes,
        )
        self.parts: dict[TopicPartition, Part] = {}
        # Partitions that another writer has opened, and until when they are left to it.
        self._fenced: dict[TopicPartition, float] = {}
        self._writing = asyncio.Lock()
        self.reader = GroupReader(
            settings.kafka,
            settings.name,
            settings.group_id,
            [TOPIC_OF[table] for table in TABLES],
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
        )
        metrics.BUFFERED.set_function(lambda: sum(part.buffer.bytes for part in self.parts.values()))

    @property
    def ready(self) -> bool:
        """Assigned (perhaps nothing), and every owned partition open."""
        return self.reader.settled and self.reader.assigned() == set(self.parts)

    async def start(self) -> None:
        """Joins the group."""
        await self.reader.start()

    async def run(self, stopping: asyncio.Event) -> None:
        """Reads and writes; ends with the error that no retry mends."""
        while not stopping.is_set():
            try:
                await self._open_new()
                # First what is due: while the store fails, nothing more is taken.
                await self._flush_due()
                self._take(await self.reader.poll(_POLL_MS, self._settings.max_poll_records))
            except NotFound as error:  # retention has passed a position: go on from what is left
                await self._release(set(self.parts))
                await self._wait("position", error)
            except Unavailable as error:
                await self._wait("kafka", error)
            except OSError as error:
                await self._wait("store", error)

    async def close(self) -> None:
        """Flushes and leaves."""
        await self._release(set(self.parts))
        await self.reader.stop()

    async def _wait(self, what: str, error: Exception) -> None:
        metrics.RETRIES.labels(what).inc()
        log.warning("trying again", what=what, error=repr(error))
        await asyncio.sleep(self._settings.retry_ms / 1000)

    def _take(self, found: Records) -> None:
        now_s = time.monotonic()
        for where, records in found.items():
            part = self.parts.get(where)
            if part is None:  # will be read again once it is open
                continue
            for record in records:
                if record.offset >= part.position:
                    value = LogRecord(record.partition, record.offset, record.timestamp, record.value)
                    part.buffer.add(value, now_s)
            part.position = max(part.position, records[-1].offset + 1)

    async def _flush_due(self) -> None:
        buffers = {where: part.buffer for where, part in self.parts.items()}
        for where, why in due(buffers, self._limits, time.monotonic()).items():
            await self._flush(where, why)

    async def _flush(self, where: TopicPartition, why: str) -> None:
        """Writes a partition's buffer; it stays as it is when the store fails."""
        async with self._writing:
            part = self.parts.get(where)
            if part is None or not part.buffer.records:
                return
            buffer, table = part.buffer, part.writer.table
            with metrics.FLUSH_SECONDS.labels(table).time():
                try:
                    await _in_thread(part.writer.flush, buffer.records, part.first)
                except Conflict as error:
                    self._leave_to_another(where, error)
                    return
            metrics.FLUSHES.labels(table, why).inc()
            part.first = buffer.records[-1].offset + 1
            part.buffer = Buffer()
            try:
                await self.reader.commit({where: part.first})
            except LoopError as error:  # only monitors read it
                log.info("offsets not committed", partition=str(where), error=str(error))

    # -- ownership ---------------------------------------------------------------------------------------

    async def _open_new(self) -> None:
        now_s = time.monotonic()
        for where in sorted(self.reader.assigned() - set(self.parts)):
            if self._fenced.get(where, 0.0) <= now_s:
                await self._open(where)

    async def _open(self, where: TopicPartition) -> None:
        """Takes a partition over and reads on from where the lake ends.

        Conflict when the topic ends before that: it is another one of the same name."""
        async with self._writing:
            writer = PartitionWriter(self._store, TABLE_OF[where.topic], where.partition)
            await _in_thread(writer.open)
            beginning = (await self.reader.beginning_offsets([where]))[where]
            end = (await self.reader.end_offsets([where]))[where]
            wanted = beginning if writer.next_offset is None else writer.next_offset
            if wanted > end:
                raise Conflict(
                    f"{where.topic} {where.partition}: the lake holds offsets up to {wanted - 1}, the topic "
                    f"ends at {end}: it was created anew; use another lake_uri"
                )
            if where not in self.reader.assigned():
                return
            first = max(wanted, beginning)
            self.reader.seek(where, first)
            self.parts[where] = Part(writer, first)
            self._fenced.pop(where, None)
            log.info("partition opened", topic=where.topic, partition=where.partition, offset=first)

    def _leave_to_another(self, where: TopicPartition, error: Conflict) -> None:
        # The group may have said its word while the flush was at work: then it is no longer there.
        self.parts.pop(where, None)
        metrics.FENCED.labels(TABLE_OF[where.topic]).inc()
        self._fenced[where] = time.monotonic() + self._settings.fenced_retry_ms / 1000
        log.warning("another writer has the partition", partition=str(where), error=str(error))

    async def _on_assigned(self, assigned: set[TopicPartition]) -> None:
        log.info("assigned", partitions=len(assigned))
        self._fenced.clear()

    async def _on_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._release(revoked)

    async def _release(self, partitions: set[TopicPartition]) -> None:
        """Flushes within ``release_timeout_ms`` and lets go."""
        try:
            async with asyncio.timeout(self._settings.release_timeout_ms / 1000):
                for where in sorted(partitions):
                    await self._flush(where, "released")
        except (OSError, LoopError) as error:  # TimeoutError is an OSError
            log.warning("not written: the next owner reads it again", error=repr(error))
        for where in partitions:
            self.parts.pop(where, None)


async def _in_thread(work: Callable[..., None], *arguments: object) -> None:
    """Runs blocking work to its end: a cancelled caller waits for it, since the thread cannot be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
