"""``python -m loadgen replay``: a real log in event time, through the real services.

What one user did in one moment is a request for those items, scored by ranking before their labels are
sent. Time is cut into intervals of ``--barrier-s`` of event time; at the end of each that has events, a
barrier goes through the whole loop and the replay waits until ranking and the feature server have passed it.
So the model and the features that score an event contain exactly the events before its interval: the result
does not depend on how fast the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from loadgen import datasets, log_command
from loadgen.evidence import EvidenceRecorder, Summary
from loadgen.freshness import quantiles
from loadgen.log_blocks import blocks, visits
from loadgen.rows import AckRow, RequestRow
from loadgen.visit import answered_row
from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Action, Impression
from rec.v1 import (
    collector_pb2,
    collector_pb2_grpc,
    feature_pb2,
    feature_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
)
from services.contract.errors import InvalidInput
from services.contract.ids import action_event_id, hash_key, impression_event_id
from services.contract.times import from_us, to_us
from services.runtime import grpc_client
from services.runtime.settings import Connections, TlsSettings

ARM = "online"
MAX_BATCH_EVENTS = 200
TRIES = 5
BARRIER_TIMEOUT_S = 60
# The loop must learn MovieLens at least this well; an id-only logistic regression behind the same
# 10-minute barrier gets 0.726.
ML_100K_EVENTS = 100_000
ML_100K_MIN_AUC = 0.72


@dataclass(frozen=True)
class Targets:
    """host:port of the services that a replay talks to."""

    gateway: str = "127.0.0.1:7051"
    feature: str = "127.0.0.1:7053"
    ranking: str = "127.0.0.1:7054"
    collector: str = "127.0.0.1:7055"


@dataclass
class _Counts:
    errors: int = 0
    retries: int = 0
    barrier_waits_ms: list[float] = field(default_factory=list)


class Replay:
    """One replay run over open channels."""

    def __init__(
        self,
        events: datasets.Events,
        targets: Targets,
        recorder: EvidenceRecorder,
        concurrency: int,
        run: str,
        *,
        shadow_arms: Sequence[str] = (),
        tls: TlsSettings,
    ) -> None:
        """``scores``: of the online arm and each shadow arm [events], NaN where it has not scored one."""
        self.shadow_arms = list(shadow_arms)
        self.scores: defaultdict[str, NDArray[np.float32]] = defaultdict(
            lambda: np.full(len(events), np.nan, np.float32)
        )
        self._events = events
        self._recorder = recorder
        self._run = run
        self._slots = asyncio.Semaphore(concurrency)
        self.counts = _Counts()
        self._channels = [
            grpc_client.channel(target, tls=tls)
            for target in (targets.gateway, targets.feature, targets.ranking, targets.collector)
        ]
        self._gateway = gateway_pb2_grpc.GatewayServiceStub(self._channels[0])
        self._feature = feature_pb2_grpc.FeatureServiceStub(self._channels[1])
        self._ranking = ranking_pb2_grpc.RankingServiceStub(self._channels[2])
        self._collector = collector_pb2_grpc.CollectorServiceStub(self._channels[3])

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    def request_id(self, index: int) -> str:
        """The same event has the same id in every try."""
        return f"{self._run}-{index:08d}"

    async def block(self, indices: range, end_us: int, number: int, synchronised: Sequence[str] = ()) -> None:
        """Scores one interval's events, sends their labels, waits until the loop has passed its barrier;
        ``synchronised``: arms beside the online one that have to pass it too."""
        made = visits(self._events, indices)
        for row in await asyncio.gather(*(self._score(visit) for visit in made)):
            self._recorder.request(row)
        barrier_id = f"{self._run}-barrier-{number:06d}"
        # All is scored, so no snapshot follows: theirs is on its way while the labels are.
        await asyncio.gather(self._log_all(made), self._end_snapshots(barrier_id, end_us))
        await self._barrier(barrier_id, end_us, (ARM, *synchronised))

    async def _score(self, visit: range) -> RequestRow:
        events, index = self._events, visit.start
        user_id = hash_key(events.user_keys[index])
        item_ids = [hash_key(events.item_keys[each]) for each in visit]
        request = gateway_pb2.RecommendRequest(
            user_id=user_id,
            n=len(item_ids),
            request_id=self.request_id(index),
            occurred_at=from_us(int(events.timestamps_us[index])),
            candidate_ids=item_ids,
            arm=ARM,
            shadow_arms=self.shadow_arms,
        )
        async with self._slots:
            sent_us = time.time_ns() // 1000
            answer = await self._until_scored(request)
        times_us = (sent_us, sent_us, time.time_ns() // 1000)
        place = dict(zip(item_ids, visit, strict=True))
        for item in answer.items:
            self.scores[ARM][place[item.item_id]] = item.score
        for shadow in answer.shadows:
            for item_id, score in zip(shadow.item_ids, shadow.scores, strict=True):
                self.scores[shadow.arm][place[item_id]] = score
        return answered_row(request.request_id, user_id, times_us, answer, None)

    async def _until_scored(self, request: gateway_pb2.RecommendRequest) -> Any:
        """An answer scored with real features; a degraded one is asked again, since a replay has no hurry."""
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                self.counts.retries += 1
                await asyncio.sleep(0.2 * 2**attempt)
            try:
                answer = await self._gateway.Recommend(request, timeout=5)
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
                continue
            if answer.provenance.scored and not answer.provenance.degraded:
                return answer
            problem = ", ".join(f"{d.source}: {d.reason}" for d in answer.provenance.degraded)
        raise RuntimeError(f"event {request.request_id} was not scored in {TRIES} tries: {problem}")

    async def _log_all(self, made: Sequence[range]) -> None:
        for batch in _batches(made):
            await self._log(batch)

    async def _end_snapshots(self, barrier_id: str, end_us: int) -> None:
        barrier = ranking_pb2.RankingServiceEmitBarrierRequest(
            barrier_id=barrier_id, occurred_at=from_us(end_us)
        )
        await self._ranking.EmitBarrier(barrier, timeout=BARRIER_TIMEOUT_S)

    async def _log(self, made: Sequence[range]) -> None:
        batch = collector_pb2.LogEventsRequest()
        for visit in made:
            impression, actions = self._events_of(visit)
            batch.impressions.append(impression)
            batch.actions.extend(actions)
        sent_us = time.time_ns() // 1000
        answer = await self._acknowledged(batch)
        acknowledged_us = to_us(answer.acknowledged_at)
        for event in (*batch.impressions, *batch.actions):
            is_action = isinstance(event, Action)
            self._recorder.acknowledged(
                AckRow(
                    event_id=event.event_id,
                    request_id=event.request_id,
                    kind="click" if is_action else "impression",
                    item_id=event.item_id if is_action else 0,
                    items=1 if is_action else len(event.item_ids),
                    occurred_us=to_us(event.occurred_at),
                    sent_us=sent_us,
                    acknowledged_us=acknowledged_us,
                )
            )

    def _events_of(self, visit: range) -> tuple[Impression, list[Action]]:
        events, request_id = self._events, self.request_id(visit.start)
        user_id = hash_key(events.user_keys[visit.start])
        moment = from_us(int(events.timestamps_us[visit.start]))
        item_ids = [hash_key(events.item_keys[index]) for index in visit]
        impression = Impression(
            event_id=impression_event_id(request_id),
            request_id=request_id,
            occurred_at=moment,
            user_id=user_id,
            item_ids=item_ids,
            positions=[int(events.positions[index]) for index in visit],
        )
        actions = [
            Action(
                event_id=action_event_id(request_id, item_id, ACTION_KIND_CLICK),
                request_id=request_id,
                occurred_at=moment,
                user_id=user_id,
                item_id=item_id,
                kind=ACTION_KIND_CLICK,
            )
            for index, item_id in zip(visit, item_ids, strict=True)
            if events.labels[index]
        ]
        return impression, actions

    async def _acknowledged(self, batch: collector_pb2.LogEventsRequest) -> Any:
        for attempt in range(TRIES):
            try:
                return await self._collector.LogEvents(batch, timeout=10)
            except grpc.aio.AioRpcError as error:
                # The same event ids go out again: a repeat has no effect.
                if error.code() != grpc.StatusCode.UNAVAILABLE or attempt == TRIES - 1:
                    raise
                self.counts.retries += 1
                await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    async def _barrier(self, barrier_id: str, end_us: int, arms: Sequence[str]) -> None:
        started = time.monotonic()
        barrier = collector_pb2.CollectorServiceEmitBarrierRequest(
            barrier_id=barrier_id, occurred_at=from_us(end_us)
        )
        await self._collector.EmitBarrier(barrier, timeout=BARRIER_TIMEOUT_S)
        limit = Duration(seconds=BARRIER_TIMEOUT_S)
        await asyncio.gather(
            self._feature.WaitForBarrier(
                feature_pb2.FeatureServiceWaitForBarrierRequest(barrier_id=barrier_id, timeout=limit),
                timeout=BARRIER_TIMEOUT_S + 1,
            ),
            *(
                self._ranking.WaitForBarrier(
                    ranking_pb2.RankingServiceWaitForBarrierRequest(
                        barrier_id=barrier_id, arm=arm, timeout=limit
                    ),
                    timeout=BARRIER_TIMEOUT_S + 1,
                )
                for arm in arms
            ),
        )
        self.counts.barrier_waits_ms.append((time.monotonic() - started) * 1000)


def _batches(made: Sequence[range]) -> Iterator[list[range]]:
    """Visits of at most MAX_BATCH_EVENTS events each, an impression and its actions; one is never cut."""
    batch: list[range] = []
    size = 0
    for visit in made:
        if batch and size + len(visit) + 1 > MAX_BATCH_EVENTS:
            yield batch
            batch, size = [], 0
        batch.append(visit)
        size += len(visit) + 1
    if batch:
        yield batch


def result(
    events: datasets.Events, summary: Summary, counts: _Counts, seconds: float, barrier_s: int
) -> dict[str, Any]:
    """The content of out/replay.json (keys: docs/results.md)."""
    return {
        "dataset": events.name,
        "events": len(events),
        "samples": summary.samples,
        "duplicates": summary.duplicates,
        "rejected_items": summary.rejected_items,
        "auc_all": summary.auc,
        "auc_second_half": summary.auc_second_half,
        "log_loss": summary.log_loss,
        "base_rate": summary.base_rate,
        "events_per_s": len(events) / seconds,
        "seconds": seconds,
        "barrier_s": barrier_s,
        "barriers": len(counts.barrier_waits_ms),
        "barrier_wait_ms": quantiles(counts.barrier_waits_ms),
        "retries": counts.retries,
        "deltas_published": summary.deltas_published,
        "deltas_applied": summary.deltas_applied,
        "delta_rows_applied": summary.delta_rows_applied,
    }


def failures(figures: dict[str, Any]) -> list[str]:
    """What in the result shows that the loop did not close; empty when it did."""
    problems = []
    if figures["samples"] != figures["events"]:
        problems.append(f"samples {figures['samples']} is not events {figures['events']}")
    if figures["duplicates"]:
        problems.append(f"{figures['duplicates']} duplicate samples")
    if figures["deltas_applied"] == 0:
        problems.append("no delta was applied")
    full_movielens = figures["dataset"] == "ml-100k" and figures["events"] == ML_100K_EVENTS
    if full_movielens and (figures["auc_all"] or 0) < ML_100K_MIN_AUC:
        problems.append(f"auc_all {figures['auc_all']} is below {ML_100K_MIN_AUC}")
    return problems


async def run(
    events: datasets.Events, arguments: argparse.Namespace, targets: Targets, connections: Connections
) -> dict[str, Any]:
    """Replays the events and returns the figures."""
    kafka, tls = connections.kafka, connections.tls
    recorder = EvidenceRecorder(arguments.out / "evidence", kafka, targets.ranking, tls)
    await recorder.start()
    replay = Replay(events, targets, recorder, arguments.concurrency, arguments.run, tls=tls)
    started = printed = time.monotonic()
    try:
        for number, (indices, end_us) in enumerate(blocks(events, arguments.barrier_s)):
            await replay.block(indices, end_us, number)
            if time.monotonic() - printed >= 10:
                printed = time.monotonic()
                _progress(indices.stop, len(events), printed - started, recorder)
        seconds = time.monotonic() - started
        await recorder.drain(timeout_s=30)
        summary = await recorder.finish()
    finally:
        await replay.close()
    return result(events, summary, replay.counts, seconds, arguments.barrier_s)


def _progress(done: int, total: int, seconds: float, recorder: EvidenceRecorder) -> None:
    area = recorder.running_auc()
    print(
        f"  {done:>7}/{total} events  {done / seconds:6.0f}/s  AUC so far {area or 0:.4f}",
        file=sys.stderr,
        flush=True,
    )


def parse(argv: list[str]) -> argparse.Namespace:
    """Command line of ``python -m loadgen replay``."""
    parser = log_command.parser("replay", __doc__)
    parser.add_argument("--gateway", default=Targets.gateway)
    parser.add_argument("--feature", default=Targets.feature)
    parser.add_argument("--ranking", default=Targets.ranking)
    parser.add_argument("--collector", default=Targets.collector)
    parser.add_argument("--kafka", default=None, help="bootstrap servers; default from the environment")
    return log_command.parsed(parser, argv)


def main(argv: list[str]) -> int:
    """Runs the command; 0 when the loop closed, 1 when a figure shows that it did not, 2 on bad input."""
    arguments = parse(argv)
    try:
        events = log_command.events_of(arguments, "replay")
    except InvalidInput as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    targets = Targets(arguments.gateway, arguments.feature, arguments.ranking, arguments.collector)
    figures = asyncio.run(run(events, arguments, targets, log_command.connections(arguments.kafka)))
    path = arguments.out / "replay.json"
    path.write_text(json.dumps(figures, indent=2) + "\n")
    for key, value in figures.items():
        print(f"  {key:<20} {value}")
    problems = failures(figures)
    for problem in problems:
        print(f"replay: FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0
