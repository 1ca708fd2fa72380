"""Where label-first's snapshots wait, a few at a time, until their labels are in. Pure.

The order in which inputs are read decides nothing (join.py), so opening early is never wrong, only larger:
a replay does not wait, and neither does a partition whose labels have grown too many while they waited
for snapshots. What is no snapshot passes in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rec.events.v1 import events_pb2 as ev
from services.contract import times
from services.contract.join_events import Source
from services.contract.join_label_first import LabelFirstTask
from services.joiner.scheme import Batch, Intake
from services.runtime.kafka_consumer import ConsumerRecord


@dataclass(slots=True)
class _Waiting:
    record: ConsumerRecord
    # Of a snapshot.
    occurred_us: int | None = None
    view: ev.BatchView | None = None


class Gate(Intake):
    """Holds snapshots, in offset order.

    ``limit``: records that it takes before it asks for no more. ``ready``: whether the table of a name is at
    hand (and sees to it when it is not). ``crowded``: held events above which it opens early.
    """

    def __init__(self, limit: int, ready: Callable[[ev.BatchView], bool], crowded: int) -> None:
        self._limit = limit
        self._ready = ready
        self._crowded = crowded
        self._records: deque[_Waiting] = deque()
        self._by_labels = False
        self.waiting_bytes = 0

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Records held."""
        return len(self._records)

    @property
    def room(self) -> int:
        """Records that it would take."""
        return self._limit - len(self._records)

    def order(
        self, task: LabelFirstTask, source: Source, records: Sequence[ConsumerRecord]
    ) -> Iterator[Batch]:
        """Labels at once; then every snapshot that they have made due."""
        if source is Source.SNAPSHOTS:
            for record in records:
                self._records.append(_looked_at(record))
                self.waiting_bytes += len(record.value or b"")
        else:
            yield source, records
        if opened := self._opened(task):
            yield Source.SNAPSHOTS, opened

    def watermarks(self, task: LabelFirstTask) -> dict[Source, int]:
        """Snapshots are where they should be when they are as late as their labels may be."""
        if self._by_labels:
            return {}
        marks = super().watermarks(task)
        marks[Source.SNAPSHOTS] += task.config.show_us + task.config.window_us + task.config.bound_us
        return marks

    def _opened(self, task: LabelFirstTask) -> list[ConsumerRecord]:
        opened = []
        self._by_labels = False
        early = task.replaying or task.held_events >= self._crowded
        while self._records:
            head = self._records[0]
            if not (early or head.occurred_us is None or task.labels_in(head.occurred_us)):
                self._by_labels = True
                break
            if head.view is not None and not self._ready(head.view):
                break
            opened.append(self._records.popleft().record)
            self.waiting_bytes -= len(head.record.value or b"")
        return opened


def _looked_at(record: ConsumerRecord) -> _Waiting:
    try:
        event = ev.EventRecord.FromString(record.value or b"")
    except DecodeError:
        # The join says what is wrong with it.
        return _Waiting(record)
    if not event.HasField("snapshot"):
        return _Waiting(record)
    snapshot = event.snapshot
    view = snapshot.slim.batch_view if snapshot.slim.HasField("batch_view") else None
    return _Waiting(record, times.to_us(snapshot.occurred_at), view)
