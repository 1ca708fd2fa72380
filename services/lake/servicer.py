"""WorkerService of the lake."""

from __future__ import annotations

import grpc

from rec.v1 import worker_pb2, worker_pb2_grpc
from services.lake.host import LakeHost


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers from memory, but for the ends of the partitions."""

    def __init__(self, host: LakeHost) -> None:
        self._host = host

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        """Positions of the owned partitions; ``committed`` is what the lake covers."""
        host = self._host
        parts = dict(sorted(host.parts.items()))
        ends = await host.reader.end_offsets(list(parts)) if parts else {}
        answer = worker_pb2.GetWorkerStatusResponse(
            worker="lake",
            state="running" if host.ready else "opening" if host.reader.settled else "joining",
        )
        for where, part in parts.items():
            answer.partitions.add(
                topic=where.topic,
                partition=where.partition,
                position=part.position,
                committed=part.first,
                end=ends[where],
            )
        answer.numbers["buffered_records"] = sum(len(part.buffer.records) for part in parts.values())
        answer.numbers["buffered_bytes"] = sum(part.buffer.bytes for part in parts.values())
        return answer
