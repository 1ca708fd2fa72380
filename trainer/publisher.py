"""Sends deltas: one at a time, each with the rejected records in one Kafka transaction.

A delta is published or it is not; when Kafka goes away during a commit nobody knows. Then the publisher
starts anew (which fences its own past) and looks into the log: the delta stands there, or it does not and
is sent again, the same bytes. Anything else at its place was written by somebody else, and the trainer has
to stop.

A start writes a mark, a record without value, behind everything that older writers may have published: what
is read up to the mark is complete, whatever end of the log a broker names that has just come back.
"""

from __future__ import annotations

import asyncio

from services.contract import delta, topics
from services.contract.errors import Conflict, Unavailable
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_transactions import TransactionalProducer
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import counter, get_logger
from trainer.core import Plan
from trainer.log_end import read_to

log = get_logger(__name__)
# In front of the lineage's key, so that no reader takes the mark for a delta of it.
_MARK = b"opened:"


class Publisher:
    """The one writer of a lineage: its transactional id is ``trainer-<generation>-<policy>``."""

    def __init__(self, kafka: KafkaSettings, generation: int, policy: str, retry_s: float) -> None:
        self._kafka = kafka
        self._id = f"trainer-{generation}-{policy}"
        self._key = topics.lineage_key(generation, policy)
        self._retry_s = retry_s
        self._producer: TransactionalProducer | None = None
        self.where = TopicPartition(topics.MODEL_DELTAS.name, topics.delta_partition(generation, policy))
        # The offset behind the last delta of the lineage, as far as this process knows.
        self.next_offset = 0
        # The offset of the mark that the last start wrote.
        self.mark = -1
        self._repairs = counter("trainer_publish_repairs", "Publications whose outcome had to be read back.")

    async def start(self) -> None:
        """Connects, fences every older writer of the lineage and marks where its deltas end."""
        producer = TransactionalProducer(self._kafka, self._id)
        try:
            await producer.start()
            await producer.begin()
            marked = producer.send_nowait(
                topics.MODEL_DELTAS.name, None, key=_MARK + self._key, partition=self.where.partition
            )
            await producer.commit()
        except BaseException:
            await producer.stop()
            raise
        self.mark = int((await marked).offset)
        self._producer = producer

    async def stop(self) -> None:
        """Closes; an open transaction is aborted by the next owner."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def publish(self, plan: Plan) -> int:
        """Returns the delta's offset once Kafka has acknowledged the transaction; tries until it has.
        Conflict when this writer has been replaced."""
        known = False
        while True:
            try:
                if known:
                    found = await self._find(plan)
                    if found is not None:
                        self.next_offset = found + 1
                        return found
                offset = await self._transaction(plan)
            except (Unavailable, TimeoutError) as error:
                self._repairs.inc()
                log.warning("delta not acknowledged", sequence=plan.header.sequence, error=repr(error))
                await asyncio.sleep(self._retry_s)
                known = await self._restart()
            else:
                self.next_offset = offset + 1
                return offset

    async def _transaction(self, plan: Plan) -> int:
        producer = self._producer
        if producer is None:
            raise Unavailable("the publisher is not connected")
        await producer.begin()
        sent = producer.send_nowait(
            topics.MODEL_DELTAS.name, plan.value, key=self._key, partition=self.where.partition
        )
        for bad in plan.rejected:
            record = bad.record
            headers = topics.rejection_headers(
                bad.reason, topics.SAMPLES.name, record.partition, record.offset
            )
            producer.send_nowait(topics.DEAD_LETTERS.name, record.value, key=record.key, headers=headers)
        await producer.commit()
        return int((await sent).offset)

    async def _restart(self) -> bool:
        """Whether there is a new producer; not (and tried again by the caller) while Kafka is away."""
        await self.stop()
        try:
            await self.start()
        except (Unavailable, TimeoutError) as error:
            log.warning("kafka away", error=repr(error))
            return False
        return True

    async def _find(self, plan: Plan) -> int | None:
        """The offset of the delta when the log has it; Conflict when another one of the lineage stands
        there."""
        reader = LogReader(self._kafka, f"{self._id} repair")
        await reader.start()
        try:
            async for record in read_to(reader, self.where, self.next_offset, end=self.mark):
                if record.value is None or record.key != self._key:
                    continue
                try:
                    sealed = delta.unseal(record.value)
                except delta.BadDelta:
                    continue
                if sealed.hash == plan.hash:
                    return int(record.offset)
                if (
                    sealed.header.epoch >= plan.header.epoch
                    and sealed.header.sequence >= plan.header.sequence
                ):
                    raise Conflict(f"another writer has published {sealed.header.sequence} of {self._id}")
        finally:
            await reader.stop()
        return None
