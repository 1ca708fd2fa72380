"""The recorder of a run: tails what the loop produces and writes it to out/evidence/*.parquet.

It watches from the outside, as an auditor would: the requests and acknowledgements that the client saw,
the topics samples, late-events, dead-letters, model-deltas and release-events (committed records only), and
ranking's stream of applied versions. ``Summary`` holds the joined figures; ``local.audit`` computes the same
figures again from the files, with code of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from loadgen import freshness
from loadgen.metrics import auc, log_loss
from loadgen.rows import (
    ROW_TYPES,
    AckRow,
    AppliedRow,
    DecisionRow,
    DeltaRow,
    RejectedRow,
    RequestRow,
    RowFile,
    SampleRow,
    ScenarioRow,
)
from rec.events.v1.events_pb2 import SampleRecord
from rec.model.v1.model_pb2 import DeltaBody, DeltaHeader, ParameterDelta, ReleaseEvent
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract import topics
from services.contract.columns import F32, U32, U64
from services.contract.ids import action_event_id
from services.contract.times import to_us
from services.runtime import grpc_client
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.settings import KafkaSettings, TlsSettings
from services.runtime.telemetry import get_logger

log = get_logger("evidence")

CLICK = 1
TAILED = (
    topics.SAMPLES,
    topics.LATE_EVENTS,
    topics.DEAD_LETTERS,
    topics.MODEL_DELTAS,
    topics.RELEASE_EVENTS,
)


@dataclass
class Summary:
    """The joined figures of a run; seconds where the name says _s."""

    samples: int
    duplicates: int
    rejected_items: dict[str, int]
    dead_letters: int
    auc: float | None
    auc_second_half: float | None
    log_loss: float | None
    base_rate: float | None
    deltas_published: int
    deltas_applied: int
    delta_rows_applied: int
    freshness_s: dict[str, float | None]
    freshness_stage_s: dict[str, dict[str, float | None]]
    freshness_clicks: int
    clicks_unserved: int
    label_wait_s: dict[str, float | None]


@dataclass
class _Columns:
    labels: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    label_waits_s: list[float] = field(default_factory=list)


class EvidenceRecorder:
    """Records one run into ``folder``; see the module docstring. Not thread-safe: one event loop."""

    def __init__(
        self, folder: Path, kafka: KafkaSettings, ranking_target: str | None, tls: TlsSettings
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.parquet"):
            old.unlink()
        self._files = {row_type: RowFile(folder, row_type) for row_type in ROW_TYPES}
        # The evidence may come late, but its reading must not load the broker that is measured.
        unhurried = kafka.model_copy(update={"fetch_max_wait_ms": 500, "fetch_min_bytes": 1024 * 1024})
        self._reader = LogReader(unhurried, "loadgen-evidence")
        self._ranking_target = ranking_target
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: set[tuple[str, int, int]] = set()
        self._duplicates = 0
        self._dead_letters = 0
        self._rejected: Counter[str] = Counter()
        self._impressed: dict[str, int] = {}
        self._clicks: dict[str, AckRow] = {}
        self._click_samples: list[tuple[str, int, int, int]] = []
        self._columns = _Columns()
        # By lineage: several may be trained side by side.
        self._deltas: dict[tuple[int, str], list[freshness.Delta]] = {}
        self._own: tuple[int, str] = (0, "")
        self._applied: set[tuple[int, str, int]] = set()
        self._applied_rows = 0
        self._responses: list[tuple[int, int]] = []
        self._progress = asyncio.Event()

    # what the client saw

    def request(self, row: RequestRow) -> None:
        """Records one intended request and its answer."""
        self._files[RequestRow].add(row)
        if row.status == "OK" and row.scored and row.arm == "online":
            self._responses.append((row.sequence, row.answered_us))
            self._own = row.generation, row.policy

    def scenarios(self, rows: Iterable[ScenarioRow]) -> None:
        """Records when which scenario was on, at the end of the load."""
        for row in rows:
            self._files[ScenarioRow].add(row)

    def acknowledged(self, row: AckRow) -> None:
        """Records one acknowledged event."""
        self._files[AckRow].add(row)
        if row.kind == "impression":
            self._impressed[row.event_id] = row.items
        else:
            self._clicks[row.event_id] = row

    @property
    def impressed_items(self) -> int:
        """Items of all acknowledged impressions, each impression once."""
        return sum(self._impressed.values())

    @property
    def joined_items(self) -> int:
        """Items that became samples (first labels), each once."""
        return len(self._columns.labels)

    @property
    def explained_items(self) -> int:
        """Samples + items rejected with a reason."""
        return self.joined_items + sum(self._rejected.values())

    def running_auc(self) -> float | None:
        """AUC of all served scores so far."""
        return auc(np.array(self._columns.labels), np.array(self._columns.scores))

    # life

    async def start(self) -> None:
        """Starts tailing from the present ends of the topics."""
        await self._reader.start()
        partitions = [TopicPartition(topic.name, p) for topic in TAILED for p in range(topic.partitions)]
        self._reader.assign(await self._reader.end_offsets(partitions))
        self._tasks.append(asyncio.create_task(self._tail(), name="evidence-tail"))
        if self._ranking_target:
            self._tasks.append(asyncio.create_task(self._watch_applied(), name="evidence-applied"))

    async def drain(self, timeout_s: float) -> bool:
        """Waits until each impressed item is a sample or a reason; False when the time ran out."""
        deadline = time.monotonic() + timeout_s
        while self.explained_items < self.impressed_items:
            self._raise_if_dead()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), min(left, 0.5))
            except TimeoutError:
                continue
        return True

    async def finish(self) -> Summary:
        """Stops tailing, closes the files and sums up."""
        self._raise_if_dead()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.stop()
        for file in self._files.values():
            file.close()
        return self._summary()

    def _raise_if_dead(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise RuntimeError(f"{task.get_name()} died") from task.exception()

    # what the loop produced

    async def _tail(self) -> None:
        handlers = {
            topics.SAMPLES.name: self._on_sample,
            topics.MODEL_DELTAS.name: self._on_delta,
            topics.LATE_EVENTS.name: self._on_rejected,
            topics.DEAD_LETTERS.name: self._on_rejected,
            topics.RELEASE_EVENTS.name: self._on_decision,
        }
        while True:
            for partition, records in (await self._reader.poll(200, 2_000)).items():
                for record in records:
                    handlers[partition.topic](record)
                self._progress.set()

    def _on_sample(self, record: Any) -> None:
        message = SampleRecord.FromString(record.value)
        if message.WhichOneof("record") != "sample":
            return
        sample = message.sample
        item_ids = np.frombuffer(sample.item_ids, U64).tolist()
        labels = np.frombuffer(sample.labels, F32).tolist()
        versions = np.frombuffer(sample.label_versions, U32).tolist()
        positions = np.frombuffer(sample.positions, U32).tolist()
        scores = np.frombuffer(sample.scores, F32).tolist()
        acted_us = to_us(sample.acted_at) if sample.HasField("acted_at") else 0
        common = {
            "request_id": sample.request_id,
            "partition": record.partition,
            "offset": record.offset,
            "appended_us": record.timestamp * 1000,
            "joined_us": to_us(sample.joined_at),
            "impressed_us": to_us(sample.impressed_at),
            "acted_us": acted_us,
            "scored_us": to_us(sample.scored_at),
            "generation": sample.model.lineage.generation,
            "sequence": sample.model.sequence,
            "arm": sample.arm,
        }
        rows = zip(item_ids, labels, versions, positions, scores, strict=True)
        for item_id, label, version, position, score in rows:
            row = SampleRow(
                item_id=item_id, label=label, label_version=version, position=position, score=score, **common
            )
            self._files[SampleRow].add(row)
            self._count_sample(row)

    def _count_sample(self, row: SampleRow) -> None:
        key = (row.request_id, row.item_id, row.label_version)
        if key in self._seen:
            self._duplicates += 1
            return
        self._seen.add(key)
        if row.label_version:
            return
        self._columns.labels.append(row.label)
        self._columns.scores.append(row.score)
        if row.label > 0.5:
            event_id = action_event_id(row.request_id, row.item_id, CLICK)
            self._click_samples.append((event_id, row.joined_us, row.partition, row.offset))
            self._columns.label_waits_s.append((row.acted_us - row.impressed_us) / 1e6)

    def _on_rejected(self, record: Any) -> None:
        # Not all of them are text: item-ids is a packed column.
        headers = dict(record.headers)
        row = RejectedRow(
            topic=record.topic,
            reason=headers.get(topics.HEADER_REASON, b"unknown").decode(),
            origin_topic=headers.get(topics.HEADER_ORIGIN_TOPIC, b"").decode(),
            origin_partition=int(headers.get(topics.HEADER_ORIGIN_PARTITION, -1)),
            origin_offset=int(headers.get(topics.HEADER_ORIGIN_OFFSET, -1)),
            items=int(headers.get("items", 0)),
        )
        self._files[RejectedRow].add(row)
        if row.topic == topics.DEAD_LETTERS.name:
            self._dead_letters += 1
        elif row.origin_topic == topics.IMPRESSIONS.name:
            self._rejected[row.reason] += row.items

    def _on_delta(self, record: Any) -> None:
        if record.value is None:  # the mark of a trainer that has started
            return
        try:
            delta = ParameterDelta.FromString(record.value)
            header, body = DeltaHeader.FromString(delta.header), DeltaBody.FromString(delta.body)
        except DecodeError:  # nobody applies it: ranking refuses it, and its copy is a dead letter
            return
        offsets = {o.partition: o.offset for o in header.sample_offsets}
        steps = tuple(
            (to_us(step.finished_at), {o.partition: o.offset for o in step.sample_offsets})
            for step in header.steps
        )
        row = DeltaRow(
            generation=header.lineage.generation,
            policy=header.lineage.policy,
            sequence=header.sequence,
            epoch=header.epoch,
            hash=delta.hash.hex(),
            previous_hash=header.previous_hash.hex(),
            created_us=to_us(header.created_at),
            appended_us=record.timestamp * 1000,
            rows=sum(len(table.ids) // 8 for table in body.tables),
            bytes=len(record.value),
            samples_trained=header.samples_trained,
            offsets=json.dumps(offsets),
            steps=json.dumps(steps),
            barrier_ids=json.dumps(list(header.barrier_ids)),
        )
        self._files[DeltaRow].add(row)
        lineage = self._deltas.setdefault((row.generation, row.policy), [])
        lineage.append(freshness.Delta(row.sequence, row.appended_us, offsets, steps))

    def _on_decision(self, record: Any) -> None:
        event = ReleaseEvent.FromString(record.value)
        self._files[DecisionRow].add(
            DecisionRow(
                arm=event.arm,
                decided_us=to_us(event.decided_at),
                decision=event.decision,
                evidence=event.evidence_json,
                revision=event.revision,
            )
        )

    async def _watch_applied(self) -> None:
        assert self._ranking_target is not None  # it is not watched without
        async with grpc_client.channel(self._ranking_target, tls=self._tls) as channel:
            stub = ranking_pb2_grpc.RankingServiceStub(channel)
            started_us = time.time_ns() // 1000
            while True:
                try:
                    async for applied in stub.WatchApplied(ranking_pb2.WatchAppliedRequest()):
                        if to_us(applied.applied_at) >= started_us:
                            self._on_applied(applied)
                except grpc.aio.AioRpcError as error:
                    # Ranking may be killed on purpose; its history is bounded: a gap shows in the count.
                    log.warning("watch_applied_lost", code=error.code().name)
                    await asyncio.sleep(0.5)

    def _on_applied(self, applied: ranking_pb2.WatchAppliedResponse) -> None:
        lineage = applied.model.lineage
        row = AppliedRow(
            replica=applied.replica,
            arm=applied.arm,
            generation=lineage.generation,
            policy=lineage.policy,
            sequence=applied.model.sequence,
            created_us=to_us(applied.created_at),
            applied_us=to_us(applied.applied_at),
            rows=applied.rows,
            bytes=applied.bytes,
        )
        key = (row.generation, row.replica, row.sequence)
        # A loaded base has no wire bytes: it is no delta.
        if row.arm != "online" or row.bytes == 0 or key in self._applied:
            return
        self._applied.add(key)
        self._files[AppliedRow].add(row)
        self._applied_rows += row.rows

    # figures

    def _freshness(self) -> freshness.Freshness:
        clicks = []
        for event_id, joined_us, partition, offset in self._click_samples:
            ack = self._clicks.get(event_id)
            if ack is not None:
                clicks.append(
                    freshness.ClickSample(ack.sent_us, ack.acknowledged_us, joined_us, partition, offset)
                )
        responses = np.array(self._responses, dtype=np.int64).reshape(-1, 2)
        deltas = sorted(self._deltas.get(self._own, []), key=lambda delta: delta.sequence)
        return freshness.measure(clicks, deltas, responses[:, 0], responses[:, 1])

    def _summary(self) -> Summary:
        labels, scores = np.array(self._columns.labels), np.array(self._columns.scores)
        half = len(labels) // 2
        fresh = self._freshness()
        return Summary(
            samples=self.joined_items,
            duplicates=self._duplicates,
            rejected_items=dict(self._rejected),
            dead_letters=self._dead_letters,
            auc=auc(labels, scores),
            auc_second_half=auc(labels[half:], scores[half:]),
            log_loss=log_loss(labels, scores),
            base_rate=float(labels.mean()) if len(labels) else None,
            deltas_published=sum(map(len, self._deltas.values())),
            deltas_applied=len(self._applied),
            delta_rows_applied=self._applied_rows,
            freshness_s=freshness.quantiles(fresh.total_s),
            freshness_stage_s={name: freshness.quantiles(fresh.stages_s[name]) for name in freshness.STAGES},
            freshness_clicks=len(fresh.total_s),
            clicks_unserved=fresh.unserved,
            label_wait_s=freshness.quantiles(self._columns.label_waits_s),
        )
