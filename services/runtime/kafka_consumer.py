"""Read Kafka: by offset without a group (LogReader), or as a member of one (GroupReader).

Both read committed records only, commit nothing by themselves and never decide by a "latest" default where
to start. Values come as bytes: whoever handles a record decodes it there, so that one bad record becomes a
dead letter and not a loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import errors as kafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition

from services.contract.errors import Conflict, LoopError, Unavailable
from services.runtime.kafka_connect import connected, connection_options
from services.runtime.kafka_errors import loop_error
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter

__all__ = ["ConsumerRecord", "GroupReader", "LogReader", "Records", "TopicPartition"]

SLOW_WAIT_MS = 500
Records = dict[TopicPartition, list[ConsumerRecord]]


class _Reader:
    """What both readers share."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._client: AIOKafkaConsumer | None = None
        self._read = counter("kafka_records_read", "Records read.", ["topic"])

    def _options(self) -> dict[str, Any]:
        return {
            **connection_options(self._settings),
            "client_id": self._client_id,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": self._settings.fetch_max_wait_ms,
            "fetch_min_bytes": self._settings.fetch_min_bytes,
            "fetch_max_bytes": self._settings.max_fetch_bytes,
            "max_partition_fetch_bytes": self._settings.max_partition_fetch_bytes,
            "request_timeout_ms": self._settings.request_timeout_ms,
        }

    def _started(self) -> AIOKafkaConsumer:
        if self._client is None:
            raise Unavailable(f"reader {self._client_id} is not started")
        return self._client

    async def poll(
        self, timeout_ms: int = 100, max_records: int = 1_000, partitions: Sequence[TopicPartition] = ()
    ) -> Records:
        """Records per partition in offset order; empty after ``timeout_ms`` without any. Of ``partitions``
        only (none = of all); what was fetched of the others stays. NotFound when a position is no longer in
        the log (retention).
        """
        try:
            found = await self._started().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        except kafka.KafkaError as error:
            raise loop_error(error, "poll") from error
        for where, records in found.items():
            self._read.labels(where.topic).inc(len(records))
        return found

    def seek(self, where: TopicPartition, offset: int) -> None:
        """Reads on from ``offset``."""
        self._started().seek(where, offset)

    async def position(self, where: TopicPartition) -> int:
        """Next offset to read."""
        return await self._started().position(where)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset that the next committed record of each partition gets (last stable offset)."""
        try:
            return await self._started().end_offsets(list(partitions))
        except kafka.KafkaError as error:
            raise loop_error(error, "end offsets") from error

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset that each partition still holds."""
        try:
            return await self._started().beginning_offsets(list(partitions))
        except kafka.KafkaError as error:
            raise loop_error(error, "beginning offsets") from error

    async def offsets_since(
        self, partitions: Iterable[TopicPartition], since_us: int
    ) -> dict[TopicPartition, int]:
        """First offset of each partition whose record is of this moment (Kafka's time) or later; the end
        where there is none."""
        wanted = list(partitions)
        ends = await self.end_offsets(wanted)
        try:
            found = await self._started().offsets_for_times(dict.fromkeys(wanted, max(0, since_us // 1000)))
        except kafka.KafkaError as error:
            raise loop_error(error, "offsets since") from error
        return {where: ends[where] if found[where] is None else found[where].offset for where in wanted}

    def pause(self, *partitions: TopicPartition) -> None:
        """Stops fetching some partitions."""
        self._started().pause(*partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Fetches them again."""
        self._started().resume(*partitions)

    async def stop(self) -> None:
        """Closes; a group member leaves its group."""
        client, self._client = self._client, None
        if client is not None:
            await client.stop()


class LogReader(_Reader):
    """Reads assigned partitions from given offsets; belongs to no group.

    ``slow``: a feed of one partition that changes rarely; its fetches wait half a second, or until the first
    news.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, *, slow: bool = False) -> None:
        super().__init__(settings, client_id)
        self._slow = slow

    async def start(self) -> None:
        """Connects; Unavailable when the broker does not come within ``connect_timeout_ms``."""
        options = {**self._options(), "group_id": None, "auto_offset_reset": "none"}
        if self._slow:
            options |= {"fetch_max_wait_ms": SLOW_WAIT_MS, "fetch_min_bytes": 1}
        self._client = await connected(self._settings, lambda: AIOKafkaConsumer(**options), "log reader")

    def assign(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Reads exactly these partitions, each from its offset; replaces an earlier assignment."""
        client = self._started()
        client.assign(list(offsets))
        # No await in between: the fetcher sees the partitions only together with their positions.
        for where, offset in offsets.items():
            client.seek(where, offset)

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic; Unavailable when it does not exist."""
        client = self._started()
        numbers = client.partitions_for_topic(topic)
        if not numbers:
            await client._client.force_metadata_update()
            try:
                await client._client._wait_on_metadata(topic)
            except kafka.KafkaError as error:
                raise loop_error(error, f"partitions of {topic}") from error
            numbers = client.partitions_for_topic(topic)
        if not numbers:
            raise Unavailable(f"topic {topic} does not exist")
        return [TopicPartition(topic, number) for number in sorted(numbers)]


OnPartitions = Callable[[set[TopicPartition]], Awaitable[None]]


class GroupReader(_Reader):
    """A member of a consumer group (range assignor: co-partitioned topics land together).

    ``on_revoked`` runs before partitions go away (commit there), ``on_assigned`` before the first record of
    new ones (load state, seek). Neither may poll.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        client_id: str,
        group: str,
        topics: Iterable[str],
        *,
        on_assigned: OnPartitions,
        on_revoked: OnPartitions,
    ) -> None:
        super().__init__(settings, client_id)
        self._group = group
        self._topics = list(topics)
        self._listener = _Listener(on_assigned, on_revoked)

    async def start(self) -> None:
        """Connects and joins the group; where it has committed nothing, reading starts at the beginning."""
        options = {
            **self._options(),
            "group_id": self._group,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": (RangePartitionAssignor,),
            "session_timeout_ms": self._settings.session_timeout_ms,
            "heartbeat_interval_ms": max(500, self._settings.session_timeout_ms // 4),
        }
        client = await connected(self._settings, lambda: AIOKafkaConsumer(**options), f"group {self._group}")
        self._client = client
        client.subscribe(self._topics, listener=self._listener)

    @property
    def settled(self) -> bool:
        """Whether the group has said who owns what: not from the end of ``on_revoked`` to ``on_assigned``."""
        return self._listener.settled

    def assigned(self) -> set[TopicPartition]:
        """The partitions that this member owns now; none while the group shares them out anew."""
        client = self._started()
        return set(client.assignment()) if self.settled else set()

    async def commit(self, offsets: Mapping[TopicPartition, int | tuple[int, str]]) -> None:
        """Commits next offsets to read, optionally with metadata. Conflict when the partitions have moved
        on.
        """
        wanted: dict[TopicPartition, OffsetAndMetadata] = {}
        for where, given in offsets.items():
            offset, metadata = given if isinstance(given, tuple) else (given, "")
            wanted[where] = OffsetAndMetadata(offset, metadata)
        try:
            await self._started().commit(wanted)
        except kafka.KafkaError as error:
            raise _commit_error(error) from error

    async def committed(self, where: TopicPartition) -> int | None:
        """Next offset to read as committed by the group; None before the first commit."""
        return await self._started().committed(where)


def _commit_error(error: kafka.KafkaError) -> LoopError:
    if isinstance(error, kafka.CommitFailedError | kafka.IllegalGenerationError | kafka.UnknownMemberIdError):
        return Conflict(f"commit: {error!r}")
    return loop_error(error, "commit")


class _Listener(ConsumerRebalanceListener):
    """Passes rebalances on; aiokafka waits for both. ``settled``: not between the two, while aiokafka itself
    still names the old partitions."""

    def __init__(self, on_assigned: OnPartitions, on_revoked: OnPartitions) -> None:
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self.settled = False

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """New partitions, before their first record."""
        self.settled = True
        await self._on_assigned(set(assigned))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Partitions about to go."""
        try:
            if revoked:
                await self._on_revoked(set(revoked))
        finally:
            self.settled = False
