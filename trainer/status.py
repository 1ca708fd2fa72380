"""WorkerService of the online trainer: tells of the lineage that its arm follows."""

from __future__ import annotations

import grpc

from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract import times
from trainer.line import TrainedLine


class TrainerStatus(worker_pb2_grpc.WorkerServiceServicer):
    """Answers from the moment the server starts: "recovering" until there is an own line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._own: TrainedLine | None = None

    def own(self, line: TrainedLine) -> None:
        """The line that is told of from now on."""
        self._own = line

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        """See the proto."""
        answer = worker_pb2.GetWorkerStatusResponse(worker=self._name, state="recovering")
        line = self._own
        if line is None:
            return answer
        trainer = line.trainer
        answer.state = "running"
        answer.last_barrier_id = trainer.last_barrier
        core = trainer.core

        def look() -> tuple[dict[str, float], dict[int, int], dict[int, int], int]:
            numbers = core.numbers() | core.rolling.figures()
            return numbers, dict(core.offsets), dict(core.state.sample_offsets), core.state.trained_until_us

        numbers, positions, committed, until_us = await trainer.in_thread(look)
        answer.numbers.update(numbers)
        answer.numbers["base_sequence"] = float(line.bases.registered_sequence)
        answer.numbers["generation"] = float(core.state.generation)
        ends = await line.reader.end_offsets(line.partitions)
        for where in line.partitions:
            part = answer.partitions.add(topic=where.topic, partition=where.partition, end=ends[where])
            part.position = positions.get(where.partition, 0)
            part.committed = committed.get(where.partition, 0)
            if until_us:
                times.set_us(part.watermark, until_us)
        return answer
