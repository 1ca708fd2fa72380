"""Talks to the workers of a run: a barrier behind the traffic, how far each has committed, what it has
held."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import grpc

from local.chaos_check import LogRecord
from local.errors import StartFailed
from local.processes import Addresses
from rec.events.v1 import events_pb2 as ev
from rec.v1 import (
    collector_pb2,
    collector_pb2_grpc,
    feature_pb2,
    feature_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)
from services.contract import topics
from services.contract.times import from_us, to_us

CALL_S = 20.0
PATIENCE_S = 120.0
POLL_S = 0.5
# The feature server waits no longer.
BARRIER_S = 60


def newest_us(events: Iterable[LogRecord]) -> int:
    """The largest event time of impressions and actions; 0 without any."""
    newest = 0
    for record in events:
        message = ev.EventRecord.FromString(record.value)
        name = message.WhichOneof("record")
        if name in ("impression", "action"):
            newest = max(newest, to_us(getattr(message, name).occurred_at))
    return newest


def emit_barrier(addresses: Addresses, barrier_id: str, occurred_us: int) -> None:
    """Writes the barrier to every event partition; it stands there when this returns."""
    at = from_us(occurred_us)
    with channel_to("ranking", addresses.target("ranking")) as channel:
        ranking_pb2_grpc.RankingServiceStub(channel).EmitBarrier(
            ranking_pb2.RankingServiceEmitBarrierRequest(barrier_id=barrier_id, occurred_at=at),
            timeout=CALL_S,
        )
    with channel_to("collector", addresses.target("collector")) as channel:
        collector_pb2_grpc.CollectorServiceStub(channel).EmitBarrier(
            collector_pb2.CollectorServiceEmitBarrierRequest(barrier_id=barrier_id, occurred_at=at),
            timeout=CALL_S,
        )


@contextmanager
def channel_to(name: str, target: str) -> Iterator[grpc.Channel]:
    """A channel whose failures are told in a line."""
    with grpc.insecure_channel(target) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            raise StartFailed(f"{name} at {target}: {error.code().name} {error.details()}") from error


def wait_committed(name: str, target: str, patience_s: float = PATIENCE_S) -> None:
    """Returns when a worker has committed everything that stood on its inputs at the time of the call. Raises
    StartFailed when it does not in time."""
    deadline = time.monotonic() + patience_s
    with channel_to(name, target) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        ends: dict[tuple[str, int], int] = {}
        while True:
            status = stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=CALL_S)
            where = {(one.topic, one.partition): one for one in status.partitions}
            ends = ends or {key: one.end - _mark(one.topic) for key, one in where.items()}
            behind = [key for key, end in ends.items() if key not in where or where[key].committed < end]
            if ends and not behind:
                return
            if time.monotonic() > deadline:
                raise StartFailed(f"{name} has not committed {behind} within {patience_s:.0f} s")
            time.sleep(POLL_S)


def _mark(topic: str) -> int:
    """Offsets behind the last record that hold none: the mark of the transaction that it came in."""
    return int(topic == topics.SAMPLES.name)


def wait_features(target: str, barrier_id: str) -> None:
    """Returns when the feature server answers with everything before a barrier. Raises StartFailed."""
    request = feature_pb2.FeatureServiceWaitForBarrierRequest(barrier_id=barrier_id)
    request.timeout.FromSeconds(BARRIER_S)
    with channel_to("feature", target) as channel:
        feature_pb2_grpc.FeatureServiceStub(channel).WaitForBarrier(request, timeout=BARRIER_S + CALL_S)


def numbers(name: str, target: str) -> Mapping[str, float]:
    """What a worker counts, by its own account."""
    with channel_to(name, target) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        return dict(stub.GetWorkerStatus(worker_pb2.GetWorkerStatusRequest(), timeout=CALL_S).numbers)


def max_held_bytes(name: str, target: str) -> int:
    """The largest state that a joiner has held."""
    return int(numbers(name, target)["held_bytes_max"])
