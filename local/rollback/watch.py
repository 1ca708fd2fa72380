"""What the loop says of itself: by RPC while it runs, by its logs afterwards."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from local.chaos_kafka import read
from local.compare.workers import channel_to
from local.errors import StartFailed
from local.processes import Addresses
from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2, ranking_pb2_grpc, release_pb2, release_pb2_grpc
from services.contract import delta, topics
from services.contract.columns import F32
from services.contract.times import to_us

CALL_S = 10.0
FIRST = model_pb2.Lineage(generation=1, policy="online")
# Where its deltas stand.
PARTITION = topics.delta_partition(FIRST.generation, FIRST.policy)
BASELINE = "baseline"
# Of the evidence of an event, what does not repeat the record itself.
_TOLD = (
    "order", "reason", "error", "restored_sequence", "sequence", "rows", "published_s", "guard", "failed",
    "checks", "state_before", "state_after", "because", "age_s", "pinned_sequence",
)  # fmt: skip


class Watch:
    """Of one stack. Raises StartFailed when a service does not answer."""

    def __init__(self, where: Addresses) -> None:
        self._where = where

    def listed(self) -> release_pb2.ListReleasesResponse:
        """Release's own list."""
        with channel_to("release", self._where.target("release")) as channel:
            stub = release_pb2_grpc.ReleaseServiceStub(channel)
            return stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=CALL_S)

    def rollbacks(self) -> list[int]:
        """The sequence at which each order was carried out, oldest first; 0 while it is not."""
        return [one.rollback.sequence for one in self.listed().rollbacks]

    def state_of(self, generation: int) -> str:
        """Where a generation stands."""
        found = [one.life.state for one in self.listed().generations if one.generation == generation]
        return found[0] if found else ""

    def baseline_serves(self) -> bool:
        """Whether users get the baseline."""
        serving = model_pb2.RELEASE_STATE_SERVING
        return any(one.arm == BASELINE and one.state == serving for one in self.listed().releases)

    def online(self) -> ranking_pb2.ArmStatus:
        """What ranking serves on the arm online."""
        with channel_to("ranking", self._where.target("ranking")) as channel:
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            answer = stub.GetModelStatus(ranking_pb2.GetModelStatusRequest(), timeout=CALL_S)
        return next(one for one in answer.arms if one.arm == "online")

    def newest_delta(self) -> bytes:
        """The newest delta of the first lineage. StartFailed when there is none."""
        found = read(self._where.kafka_bootstrap, [topics.MODEL_DELTAS], committed=True)
        values = [one.value for one in found if one.partition == PARTITION and one.value]
        if not values:
            raise StartFailed("the trainer has published nothing: see its log")
        return values[-1]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Moment, reason and origin of every one."""
        rows = []
        for record in read(self._where.kafka_bootstrap, [topics.DEAD_LETTERS], committed=True):
            headers = dict(record.headers)
            rows.append(
                {
                    "at_us": record.timestamp_ms * 1000,
                    "reason": headers.get(topics.HEADER_REASON, b"").decode(),
                    "origin": headers.get(topics.HEADER_ORIGIN_TOPIC, b"").decode(),
                    "partition": int(headers.get(topics.HEADER_ORIGIN_PARTITION, b"-1")),
                    "offset": int(headers.get(topics.HEADER_ORIGIN_OFFSET, b"-1")),
                }
            )
        return rows

    def events(self) -> list[dict[str, Any]]:
        """Every decision of release, with its evidence; bases, which come by the clock, are left out."""
        found = []
        for record in read(self._where.kafka_bootstrap, [topics.RELEASE_EVENTS], committed=True):
            event = model_pb2.ReleaseEvent.FromString(record.value)
            evidence = json.loads(event.evidence_json)
            told = {name: evidence[name] for name in _TOLD if evidence.get(name) is not None}
            if event.decision != "base_registered":
                found.append(
                    {"at_us": to_us(event.decided_at), "arm": event.arm, "decision": event.decision, **told}
                )
        return found

    def deltas(self) -> list[dict[str, Any]]:
        """Every record of the first lineage that is what its hash says, oldest first; ``max_abs``: its
        largest parameter, infinite when one is no number."""
        rows = []
        for record in read(self._where.kafka_bootstrap, [topics.MODEL_DELTAS], committed=True):
            if record.partition == PARTITION and record.value:
                row = _delta(record.value)
                rows += [] if row is None else [row]
        return rows


def _delta(value: bytes) -> dict[str, Any] | None:
    try:
        sealed = delta.unseal(value)
    except delta.BadDelta:
        return None
    header = sealed.header
    if header.lineage != (FIRST.generation, FIRST.policy):
        return None
    body = model_pb2.DeltaBody.FromString(sealed.body)
    parts = [table.rows for table in body.tables] + [tensor.values for tensor in body.dense]
    largest = max((_largest(part) for part in parts), default=0.0)
    return {
        "sequence": header.sequence,
        "epoch": header.epoch,
        "created_us": header.created_at_us,
        "hash": sealed.hash.hex(),
        "restored_sequence": None if header.rollback is None else header.rollback.restored_sequence,
        "max_abs": largest,
    }


def _largest(column: bytes) -> float:
    values = np.frombuffer(column, F32)
    if not len(values):
        return 0.0
    largest = float(np.abs(values).max())
    return largest if math.isfinite(largest) else math.inf
