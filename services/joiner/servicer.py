"""WorkerService of the joiner."""

from __future__ import annotations

from collections import Counter

import grpc

from rec.v1 import worker_pb2, worker_pb2_grpc
from services.contract.join_position import NEVER_US
from services.contract.times import set_us
from services.joiner.host import JoinHost
from services.joiner.partition import PartitionJoin


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Answers from memory, but for the ends of the partitions."""

    def __init__(self, host: JoinHost) -> None:
        self._host = host

    async def GetWorkerStatus(
        self, request: worker_pb2.GetWorkerStatusRequest, context: grpc.aio.ServicerContext
    ) -> worker_pb2.GetWorkerStatusResponse:
        """Positions, watermarks and counters of the owned partitions."""
        host = self._host
        parts = [part for _, part in sorted(host.parts.items())]
        ends = await host.reader.end_offsets([where for part in parts for where in part.inputs.values()])
        answer = worker_pb2.GetWorkerStatusResponse(worker="joiner", state=state(host))
        for part in parts:
            if part not in host.parts.values():
                continue
            for source, where in part.inputs.items():
                clock = part.task.inputs[source]
                row = answer.partitions.add(
                    topic=where.topic,
                    partition=where.partition,
                    position=clock.next_offset,
                    committed=part.committed[source].offset,
                    end=ends[where],
                )
                if clock.watermark_us > NEVER_US:
                    set_us(row.watermark, clock.watermark_us)
            answer.last_barrier_id = part.last_barrier_id or answer.last_barrier_id
        answer.numbers.update(numbers(list(host.parts.values())))
        return answer


def state(host: JoinHost) -> str:
    """joining (the group), replaying (a state), running."""
    if not host.assigned.is_set():
        return "joining"
    return "running" if host.ready else "replaying"


def numbers(parts: list[PartitionJoin]) -> dict[str, float]:
    """Sums over the owned partitions, since each was opened."""
    total: Counter[str] = Counter()
    for part in parts:
        task, stats = part.task, part.task.stats
        for name, counts in (
            ("records", stats.records),
            ("repeats", stats.repeats),
            ("rejected", stats.reasons),
            ("items", stats.items),
        ):
            for key, value in counts.items():
                total[f"{name}.{key}"] += value
        total["not_shown"] += task.not_shown
        total["evicted_events"] += stats.evicted_events
        total["barriers_passed"] += stats.barriers_passed
        total["held_events"] += task.held_events
        total["held_bytes"] += part.held_bytes
        total["held_bytes_max"] += part.peak.bytes
        total["gated_records"] += part.intake.waiting
        total["open_impressions"] += task.open_impressions
        total["pending_actions"] += task.pending_actions
    return {name: float(value) for name, value in total.items()}
