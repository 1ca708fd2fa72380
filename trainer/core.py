"""The trainer without its I/O: records in, deltas out. One thread at a time may use it.

    records --train()--> state, touched ids, finished steps, complete barriers, quarantined records
            --build()--> a sealed delta of everything since the last acknowledged one  --ack()/fail()-->

The state's place in the chain moves with ``ack``. ``build`` can freeze the state while it stands exactly at
the delta's sequence: frozen so, it is a base, once the delta is acknowledged.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np

from services.contract import delta, model_schema
from services.contract.delta import Body, DenseChange, Header, Step, TableChange
from services.contract.model_state import Frozen, ModelState, advance
from trainer.barriers import Barriers
from trainer.evaluate import Rolling
from trainer.expiry import Expiry
from trainer.orders import Quarantine
from trainer.sample_columns import Known
from trainer.samples import Bad, Batch, RawRecord, decode
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step
from trainer.touched import Touched, TouchedIds, ascending

# Steps named one by one in a header; older ones are merged into their successor.
MAX_STEPS = 1_000
MAX_QUARANTINED = 10_000
MAX_QUARANTINED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Plan:
    """One delta ready to be sent, with the records to reject in the same transaction."""

    header: Header
    value: bytes
    hash: bytes
    rows: int
    rejected: tuple[Bad, ...]
    # The state at exactly this sequence, when one was asked for.
    base: Frozen | None


class UnknownSchema(Exception):
    """Records of feature sets that are not known here (yet)."""

    def __init__(self, hashes: frozenset[int]) -> None:
        super().__init__(", ".join(f"{one:016x}" for one in sorted(hashes)))


class TrainerCore:
    """Owns a model's state and everything that is not yet published of it."""

    def __init__(
        self,
        state: ModelState,
        learning: LearningSettings,
        admission: AdmissionSettings,
        *,
        epoch: int,
        partitions: frozenset[int],
        evaluation_rows: int = 50_000,
        max_record_rows: int = 1_000,
        known: Known | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.state = state
        self.touched = Touched()
        self.barriers = Barriers(partitions, state.open_barriers)
        self.expiry = Expiry(admission)
        self.rolling = Rolling(evaluation_rows)
        self.counts: Counter[str] = Counter()
        self._learning = learning
        self._admission = admission
        self._epoch = epoch
        self._max_record_rows = max_record_rows
        self._known = known
        self._quarantine = quarantine or Quarantine()
        # Next offsets to read, as far as records were taken in here.
        self.offsets = dict(state.sample_offsets)
        self._barrier_us = 0
        self._steps: deque[Step] = deque(maxlen=MAX_STEPS)
        self._quarantined: list[Bad] = []
        self._in_flight: Plan | None = None

    @property
    def passed_us(self) -> int:
        """Event time that training has reached, by samples or by a complete barrier; 0 = none yet."""
        return max(self.state.trained_until_us, self._barrier_us, 0)

    @property
    def due(self) -> bool:
        """Whether there is anything to publish."""
        return bool(len(self.touched) or self.barriers.complete or self._quarantined)

    @property
    def full(self) -> bool:
        """Whether quarantined records must leave before more records are taken in."""
        size = sum(len(bad.record.value) for bad in self._quarantined)
        return len(self._quarantined) >= MAX_QUARANTINED or size >= MAX_QUARANTINED_BYTES

    def train(self, raw: list[RawRecord], now_us: int, *, refuse_unknown: bool = True) -> int:
        """Learns from records, in order; rows trained. A record below its partition's offset was trained
        before and is left out, as is one that a rollback has quarantined. Without ``refuse_unknown``:
        UnknownSchema, and nothing has changed."""
        fresh = [record for record in raw if record.offset >= self.offsets.get(record.partition, 0)]
        undone = [self._quarantine.covers(record.partition, record.offset) for record in fresh]
        passed_over = [record for record, is_undone in zip(fresh, undone, strict=True) if is_undone]
        taken = [record for record, is_undone in zip(fresh, undone, strict=True) if not is_undone]
        decoded = decode(taken, self.state.shape, self._max_record_rows, self._learning, self._known)
        if decoded.unknown and not refuse_unknown:
            raise UnknownSchema(decoded.unknown)
        self.counts["records_repeated"] += len(raw) - len(fresh)
        self.counts["records_passed_over"] += len(passed_over)
        self.counts["records_lacking_columns"] += decoded.lacking
        self._reject(list(decoded.bad))
        trained = 0
        for part in decoded.batch.split(self._learning.minibatch_rows) if decoded.batch else []:
            trained += self._step(part)
        for record in fresh:
            self.offsets[record.partition] = max(self.offsets.get(record.partition, 0), record.offset + 1)
        # What must not be trained may still hold barriers.
        skipped = decode(passed_over, self.state.shape, self._max_record_rows, self._learning, self._known)
        for barrier in (*skipped.barriers, *decoded.barriers):
            if self.barriers.seen(barrier.barrier_id, barrier.partition):
                self._barrier_us = max(self._barrier_us, barrier.occurred_us)
        if fresh:
            self._steps.append(Step(now_us, dict(self.offsets)))
        self.counts["records"] += len(fresh)
        self.counts["rows_expired"] += self.expiry.sweep(self.state, self.touched)
        return trained

    def build(self, now_us: int, *, with_base: bool = False) -> Plan | None:
        """Seals everything since the last acknowledged delta; None when there is nothing."""
        if self._in_flight is not None:
            raise RuntimeError("a delta is in flight already")
        if not self.due:
            return None
        touched = self.touched.begin()
        header = self._header(now_us)
        body = body_of(self.state, touched)
        value, digest = delta.seal(header, body)
        base = None
        if with_base:
            base = Frozen(self.state)
            advance(base.head, header, digest)
        rejected, self._quarantined = tuple(self._quarantined), []
        self._steps.clear()
        self._in_flight = Plan(header, value, digest, body.rows, rejected, base)
        return self._in_flight

    def ack(self) -> None:
        """Kafka has the delta in flight."""
        plan = self._flying()
        self.touched.ack()
        self.barriers.named(plan.header.barrier_ids)
        # Counted on while the delta was in flight: only the place in the chain is the delta's.
        now = (self.state.samples_trained, self.state.trained_until_us)
        advance(self.state, plan.header, plan.hash)
        self.state.samples_trained, self.state.trained_until_us = now
        self._in_flight = None
        self.counts["deltas"] += 1
        self.counts["delta_rows"] += plan.rows
        self.counts["delta_bytes"] += len(plan.value)

    def fail(self) -> None:
        """The delta in flight was not published and never will be: its content goes out with the next one."""
        plan = self._flying()
        self.touched.fail()
        if plan.base is not None:
            plan.base.close()
        self._quarantined = [*plan.rejected, *self._quarantined]
        self._steps.extendleft(reversed(plan.header.steps))
        self._in_flight = None
        self.counts["deltas_failed"] += 1

    def numbers(self) -> dict[str, float]:
        """Sizes and counters by name, without the rolling figures."""
        sizes = {
            "sequence": self.state.sequence,
            "epoch": self._epoch,
            "samples_trained": self.state.samples_trained,
            "rows": self.state.rows,
            "pending_ids": sum(len(table.pending) for table in self.state.tables.values()),
            "touched_ids": len(self.touched),
            "in_flight_ids": self.touched.in_flight,
            "quarantined": len(self._quarantined),
            "open_barriers": len(self.barriers.open),
            "barriers_forgotten": self.barriers.forgotten,
        }
        return {name: float(value) for name, value in (sizes | dict(self.counts)).items()}

    def _step(self, part: Batch) -> int:
        result = train_step(self.state, part, self._learning, self._admission)
        self.counts["ids_refused"] += result.refused
        if result.skipped:
            self.counts[f"steps_skipped_{result.skipped}"] += 1
            owners = np.unique(part.owner)
            self._reject([Bad(part.records[index], f"step_{result.skipped}") for index in owners.tolist()])
            return 0
        self.counts["steps"] += 1
        self.counts["corrections_trained"] += int(part.corrections.sum())
        self.rolling.add(part.labels, part.scores, result.predictions, part.negatives)
        for name, (rows, pending) in result.touched.items():
            self.touched.touch(name, rows, pending)
        return len(part)

    def _reject(self, bad: list[Bad]) -> None:
        for one in bad:
            self.counts[f"rejected_{one.reason}"] += 1
        self._quarantined.extend(bad)

    def _header(self, now_us: int) -> Header:
        state = self.state
        return Header(
            generation=state.generation,
            policy=state.policy,
            sequence=state.sequence + 1,
            epoch=self._epoch,
            previous_hash=state.chain_hash,
            # A chain's times never go back, though clocks do: "the state of then" is one place in it.
            created_at_us=max(now_us, state.created_at_us),
            model_hash=state.shape.model_hash,
            sample_offsets=dict(self.offsets),
            steps=tuple(self._steps),
            samples_trained=state.samples_trained,
            barrier_ids=self.barriers.complete,
            trained_until_us=state.trained_until_us,
            open_barriers=self.barriers.open,
        )

    def _flying(self) -> Plan:
        if self._in_flight is None:
            raise RuntimeError("no delta is in flight")
        return self._in_flight


def body_of(state: ModelState, touched: dict[str, TouchedIds]) -> Body:
    """The current values of the touched ids, and all dense tensors."""
    tables = tuple(_change(state, name, ids) for name, ids in touched.items() if len(ids))
    dense = tuple(
        DenseChange(name, state.dense[name].copy(), state.dense_optimizer[name].copy())
        for name in model_schema.DENSE
    )
    return Body(tables, dense)


def _change(state: ModelState, name: str, touched: TouchedIds) -> TableChange:
    table = state.tables[name]
    ids, pending = ascending(touched.rows), ascending(touched.pending)
    slots = table.slots(ids)
    counts, last = table.pending.get(pending)
    return replace(
        TableChange(name),
        ids=ids,
        rows=table.rows[slots],
        optimizer=table.optimizer[slots],
        counts=table.counts[slots],
        last_seen_us=table.last_seen_us[slots],
        expired_ids=ascending(touched.expired),
        pending_ids=pending,
        pending_counts=counts,
        pending_last_seen_us=last,
    )
