"""WorkerService of the online trainer."""

from __future__ import annotations

import grpc

from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import times
from services.runtime.kafka_consumer import LogReader, TopicPartition
from trainer.bases import BaseKeeper
from trainer.online import OnlineTrainer


class TrainerStatus(worker_pb2_grpc.WorkerServiceServicer):
    """Answers from the moment the server starts: "recovering" until ``ready`` was called."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._trainer: OnlineTrainer | None = None
        self._reader: LogReader | None = None
        self._bases: BaseKeeper | None = None
        self._partitions: list[TopicPartition] = []

    def ready(
        self,
        trainer: OnlineTrainer,
        reader: LogReader,
        bases: BaseKeeper,
        partitions: list[TopicPartition],
    ) -> None:
        """The trainer runs."""
        self._trainer, self._reader, self._bases, self._partitions = trainer, reader, bases, partitions

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        """See the proto."""
        answer = worker_pb2.GetWorkerStatusResponse(worker=self._name, state="recovering")
        trainer, reader, bases = self._trainer, self._reader, self._bases
        if trainer is None or reader is None or bases is None:
            return answer
        answer.state = "running"
        answer.last_barrier_id = trainer.last_barrier
        core = trainer.core

        def look() -> tuple[dict[str, float], dict[int, int], dict[int, int], int]:
            numbers = core.numbers() | core.rolling.figures()
            return numbers, dict(core.offsets), dict(core.state.sample_offsets), core.state.trained_until_us

        numbers, positions, committed, until_us = await trainer.in_thread(look)
        answer.numbers.update(numbers)
        answer.numbers["base_sequence"] = float(bases.registered_sequence)
        ends = await reader.end_offsets(self._partitions)
        for where in self._partitions:
            part = answer.partitions.add(topic=where.topic, partition=where.partition, end=ends[where])
            part.position = positions.get(where.partition, 0)
            part.committed = committed.get(where.partition, 0)
            if until_us:
                times.set_us(part.watermark, until_us)
        return answer
