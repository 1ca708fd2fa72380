"""The joiner's event loop: one group membership, one PartitionJoin per owned partition.

Down: reading stops -> every partition commits what it has said -> its producer closes -> the group is left.
The same for partitions that are revoked. A partition whose transaction failed is opened anew from what is
committed. One that was fenced stays closed until the group assigns it again: a newer owner is a member of the
group, so the rebalance that tells this one is under way, and fencing it back would only start a war.
"""

from __future__ import annotations

import asyncio
import time

from services.contract.errors import Conflict, LoopError, NotFound, Unavailable
from services.contract.join import OtherRules
from services.contract.join_events import Source
from services.joiner import metrics
from services.joiner.cadence import inputs_ahead
from services.joiner.partition import PartitionJoin
from services.joiner.scheme import scheme_of
from services.joiner.settings import Settings
from services.runtime.clock import WallClock
from services.runtime.kafka_consumer import GroupReader, Records, TopicPartition

log = metrics.log
_POLL_MS = 200


class JoinHost:
    """``start``, then ``run`` as a guarded task; ``close`` at the end."""

    def __init__(self, settings: Settings, wall: WallClock) -> None:
        self._settings = settings
        self._config = settings.join_config()
        self._wall = wall
        self.scheme = scheme_of(settings)
        self._sources = {topic: source for source, topic in self.scheme.names.inputs.items()}
        self.parts: dict[int, PartitionJoin] = {}
        self._peaks: dict[int, metrics.Peak] = {}
        self._owners: dict[int, asyncio.Task[None]] = {}
        self._paused: set[TopicPartition] = set()
        self._last_read_s: dict[TopicPartition, float] = {}
        self._fatal: BaseException | None = None
        self.assigned = asyncio.Event()
        self.reader = GroupReader(
            settings.kafka,
            settings.name,
            settings.group_id,
            list(self._sources),
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
        )

    @property
    def ready(self) -> bool:
        """Assigned (perhaps nothing), every owned partition open and past its replay."""
        return (
            self.assigned.is_set()
            and len(self.parts) == len(self._owners)
            and not any(part.replaying for part in self.parts.values())
        )

    async def start(self) -> None:
        """Joins the group."""
        await self.reader.start()

    async def run(self) -> None:
        """Reads and joins until cancelled; ends with the error that no retry mends."""
        while True:
            if self._fatal is not None:
                raise self._fatal
            try:
                await self._read()
            except (Unavailable, NotFound) as error:
                log.warning("reading failed", error=repr(error))
                await asyncio.sleep(self._settings.retry_ms / 1000)
                continue
            await self._end_replays()
            self._pause()
            # A poll that finds records waiting returns at once: commits and calls need their turn.
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Commits and leaves."""
        await self._release(set(self._owners))
        await self.reader.stop()
        await self.scheme.close()

    async def _read(self) -> None:
        intakes = {partition: part.intake for partition, part in self.parts.items()}
        reads = list(self.scheme.reads(self.reader.assigned(), intakes))
        some = False
        for partitions, most in reads[:-1]:
            found = await self.reader.poll(0, most, partitions)
            self._join(found)
            some = some or bool(found)
        if reads:
            partitions, most = reads[-1]
            self._join(await self.reader.poll(0 if some else _POLL_MS, most, partitions))
        else:
            await asyncio.sleep(_POLL_MS / 1000)
        for part in self.parts.values():
            if part.intake.waiting:
                part.take(Source.SNAPSHOTS)

    def _join(self, found: Records) -> None:
        now_s = time.monotonic()
        for where, records in found.items():
            self._last_read_s[where] = now_s
            part = self.parts.get(where.partition)
            if part is not None:
                part.take(self._sources[where.topic], records)

    async def _end_replays(self) -> None:
        for part in [part for part in self.parts.values() if part.replaying]:
            await part.end_replay(self.reader)

    def _pause(self) -> None:
        wanted: set[TopicPartition] = set()
        for part in self.parts.values():
            wanted |= part.read_enough()
            wanted |= self._ahead(part)
        owned = self.reader.assigned()
        wanted &= owned
        if begin := wanted - self._paused:
            metrics.PAUSED.labels("full").inc(len(begin))
            self.reader.pause(*begin)
        if end := (self._paused - wanted) & owned:
            self.reader.resume(*end)
        self._paused = wanted

    def _ahead(self, part: PartitionJoin) -> set[TopicPartition]:
        """Inputs that wait for the slowest: the state is large, and the slowest does bring records."""
        if part.replaying or part.task.held_events < self._settings.pause_held_events:
            return set()
        marks = part.intake.watermarks(part.task)
        if not marks:
            return set()
        slowest = min(marks, key=lambda source: marks[source])
        silent_s = time.monotonic() - self._last_read_s.get(part.inputs[slowest], 0.0)
        if silent_s > self._settings.pause_silence_ms / 1000:
            return set()
        ahead = inputs_ahead({int(s): mark for s, mark in marks.items()}, self._config.bound_us)
        return {where for source, where in part.inputs.items() if int(source) in ahead}

    # -- ownership ---------------------------------------------------------------------------------------

    async def _on_assigned(self, assigned: set[TopicPartition]) -> None:
        self._paused.clear()
        partitions = sorted({where.partition for where in assigned})
        log.info("assigned", partitions=partitions)
        opened = []
        for partition in partitions:
            first = asyncio.get_running_loop().create_future()
            opened.append(first)
            name = f"partition {partition}"
            self._owners[partition] = asyncio.create_task(self._own(partition, first), name=name)
        await asyncio.gather(*opened)
        self.assigned.set()

    async def _on_revoked(self, revoked: set[TopicPartition]) -> None:
        self.assigned.clear()
        await self._release({where.partition for where in revoked})

    async def _release(self, partitions: set[int]) -> None:
        await asyncio.gather(*(self.parts[p].finish() for p in partitions if p in self.parts))
        owners = [self._owners.pop(p) for p in partitions if p in self._owners]
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)
        if partitions:
            log.info("released", partitions=sorted(partitions))

    async def _own(self, partition: int, first: asyncio.Future[None]) -> None:
        """Opens the partition and commits for it, again after each failure, until it is released."""
        why = "assigned"
        while True:
            peak = self._peaks.setdefault(partition, metrics.Peak(partition))
            part = PartitionJoin(
                partition, self._settings, self._config, self._wall, scheme=self.scheme, peak=peak
            )
            pause_s = self._settings.retry_ms / 1000
            try:
                await part.open(self.reader)
                metrics.REBUILDS.labels(why).inc()
                self.parts[partition] = part
                if not first.done():
                    first.set_result(None)
                await part.run()
            except OtherRules as error:
                self._fatal = error
                return
            except Conflict as error:
                why, pause_s = "fenced", self._settings.fenced_retry_ms / 1000
                metrics.FENCED.labels(str(partition)).inc()
                log.warning("fenced by a newer owner", partition=partition, error=str(error))
            except (LoopError, TimeoutError) as error:
                why = "failed"
                log.warning("partition failed, opening it anew", partition=partition, error=repr(error))
            except Exception as error:
                # Not one of the loop's errors: nothing here knows how to go on.
                self._fatal = error
                return
            finally:
                self.parts.pop(partition, None)
                if not first.done():
                    first.set_result(None)
                await part.drop()
            # The client may have swallowed the cancellation while it closed.
            if self._owners.get(partition) is not asyncio.current_task():
                return
            await asyncio.sleep(pause_s)
