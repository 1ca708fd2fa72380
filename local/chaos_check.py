"""Compares what a host of the join wrote to Kafka, through kills and restarts, with what its inputs say.

The inputs are read back from Kafka and joined anew by the pure join, which needs no host and is never killed;
everything said is a function of the three logs alone, so both must be the same set. A row on Kafka twice is
a duplicate, a row that is missing a loss: nothing else explains it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rec.events.v1 import events_pb2 as ev
from services.contract import topics
from services.contract.columns import F32, U32, U64
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import HEADER_ITEMS, Output, Rejected, Sample

INPUTS: dict[str, Source] = {
    topics.FEATURE_SNAPSHOTS.name: Source.SNAPSHOTS,
    topics.IMPRESSIONS.name: Source.IMPRESSIONS,
    topics.ACTIONS.name: Source.ACTIONS,
}
# request id, item, label version.
SampleId = tuple[str, int, int]
# reason, input, partition, offset.
RowId = tuple[str, int, int, int]


@dataclass(frozen=True)
class LogRecord:
    """A record as it stands on a partition."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    key_bytes: int = 0


@dataclass
class Said:
    """Samples by id with a digest of their content, reason rows with the items that they explain."""

    samples: Counter[SampleId] = field(default_factory=Counter)
    content: dict[SampleId, bytes] = field(default_factory=dict)
    rows: Counter[RowId] = field(default_factory=Counter)
    items: dict[RowId, int] = field(default_factory=dict)
    barriers: set[tuple[int, str]] = field(default_factory=set)

    def sample(self, sample: ev.TrainingSample) -> None:
        """Takes the rows of a sample record in."""
        ids = np.frombuffer(sample.item_ids, U64).tolist()
        versions = np.frombuffer(sample.label_versions, U32).tolist()
        columns = [np.frombuffer(sample.labels, F32), np.frombuffer(sample.positions, U32)]
        columns.append(np.frombuffer(sample.scores, F32))
        width = len(sample.item_features) // max(1, len(ids))
        acted = sample.acted_at.SerializeToString()
        for row, key in enumerate((sample.request_id, *pair) for pair in zip(ids, versions, strict=True)):
            self.samples[key] += 1
            digest = hashlib.blake2b(acted, digest_size=8)
            for column in columns:
                digest.update(column[row].tobytes())
            digest.update(sample.item_features[width * row : width * (row + 1)])
            self.content.setdefault(key, digest.digest())

    def row(self, key: RowId, items: int) -> None:
        """Takes a reason row in."""
        self.rows[key] += 1
        self.items.setdefault(key, items)


@dataclass(frozen=True)
class Difference:
    """0 everywhere = the host did what the logs say."""

    duplicates: int
    unexplained_losses: int
    # Rows on Kafka that the logs do not justify, and rows whose content is another one.
    unjustified: int
    altered: int
    samples: int
    reason_rows: int
    impressed_items: int

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not (self.duplicates or self.unexplained_losses or self.unjustified or self.altered)


def expected(config: JoinConfig, inputs: Mapping[int, Mapping[Source, Sequence[LogRecord]]]) -> Said:
    """What the inputs of each partition say, in the order of the records' timestamps."""
    said = Said()
    for partition, logs in inputs.items():
        task = JoinTask(config)
        records = [(r.timestamp_ms, int(source), r.offset, r) for source in SOURCES for r in logs[source]]
        for _, source, offset, record in sorted(records, key=lambda entry: entry[:3]):
            for output in task.feed(Source(source), offset, record.value):
                _take(said, partition, output)
    return said


def _take(said: Said, partition: int, output: Output) -> None:
    if isinstance(output, Sample):
        said.sample(output.message)
    elif isinstance(output, Rejected):
        said.row((str(output.reason), int(output.source), partition, output.offset), output.items)
    else:
        said.barriers.add((partition, output.barrier_id))


def found(records: Iterable[LogRecord], samples: str = topics.SAMPLES.name) -> Said:
    """What stands on the topic ``samples``, and on those of late events and dead letters."""
    said = Said()
    for record in records:
        if record.topic == samples:
            message = ev.SampleRecord.FromString(record.value)
            if message.WhichOneof("record") == "barrier":
                said.barriers.add((record.partition, message.barrier.barrier_id))
            else:
                said.sample(message.sample)
            continue
        headers = dict(record.headers)
        origin = headers.get(topics.HEADER_ORIGIN_TOPIC, b"").decode()
        if origin in INPUTS:
            where = (int(headers[topics.HEADER_ORIGIN_PARTITION]), int(headers[topics.HEADER_ORIGIN_OFFSET]))
            key = (headers[topics.HEADER_REASON].decode(), int(INPUTS[origin]), *where)
            said.row(key, int(headers.get(HEADER_ITEMS, b"0")))
    return said


def compare(wanted: Said, got: Said) -> Difference:
    """Counts every difference; losses are impressed items without sample and without reason, and reason rows
    that are missing."""
    duplicates = sum(count - 1 for count in got.samples.values())
    duplicates += sum(count - wanted.rows.get(key, 1) for key, count in got.rows.items() if count > 1)
    lost = sum(key not in got.samples for key in wanted.samples)
    lost += sum(max(1, wanted.items[key]) for key in wanted.rows if key not in got.rows)
    unjustified = sum(key not in wanted.samples for key in got.samples)
    unjustified += sum(key not in wanted.rows for key in got.rows)
    altered = sum(got.content[key] != wanted.content[key] for key in got.content if key in wanted.content)
    return Difference(
        duplicates,
        lost,
        unjustified,
        altered,
        len(got.samples),
        len(got.rows),
        len(wanted.samples) + sum(wanted.items.values()),
    )


def aborted(all_records: Iterable[LogRecord], committed: Iterable[LogRecord]) -> list[int]:
    """Times (ms) of the records that were written inside transactions which never committed."""
    visible = {(r.topic, r.partition, r.offset) for r in committed}
    return sorted(r.timestamp_ms for r in all_records if (r.topic, r.partition, r.offset) not in visible)
